"""How to enlarge, and how far it is; without torch, so that wrong settings are told at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dreamsr.errors import UsageError

SMALLEST_TILE_PX = 72
"""Two overlaps of `core.tiles` and one step of its grid: less would be all overlap."""


@dataclass(frozen=True)
class Settings:
    """How to enlarge.

    steps: denoising steps, None for what the weights recommend. seed: of the noise; same seed and tiles, same bytes
    on the CPU. fidelity: 0 is most texture, 1 is the first step's estimate alone, the most faithful. stochasticity: 0
    deterministic to 1 ancestral. tile_px: side of a tile in px of the small image, None for what fits the
    machine's memory. match: hold the low frequencies of the result to those of the input. Raises UsageError.
    """

    steps: int | None = None
    seed: int = 0
    fidelity: float = 0.0
    stochasticity: float = 0.0
    tile_px: int | None = None
    match: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"`steps` is {self.steps}, but it must be 1 or more")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"`seed` is {self.seed}, but it must be 0 or more and below 2**63")
        if not 0 <= self.fidelity <= 1:
            raise UsageError(f"`fidelity` is {self.fidelity:g}, but it must be in 0..1")
        if not 0 <= self.stochasticity <= 1:
            raise UsageError(f"`stochasticity` is {self.stochasticity:g}, but it must be in 0..1")
        if self.tile_px is not None and self.tile_px < SMALLEST_TILE_PX:
            raise UsageError(f"`tile_px` is {self.tile_px}, but it must be {SMALLEST_TILE_PX} or more, or auto")


@dataclass(frozen=True)
class Progress:
    """How far one picture is: `done` of `total` net evaluations."""

    done: int
    total: int

    @property
    def fraction(self) -> float:
        """0 at the start, 1 when done."""
        return self.done / self.total


OnProgress = Callable[[Progress], None]
OnChoice = Callable[[str], None]
"""Hears the names of the weights that a picture is enlarged with."""
