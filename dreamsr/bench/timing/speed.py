"""How fast, in figures: what `race.py` found of each method at each size, as JSON, CSV and tables have it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from dreamsr.bench.report import number


@dataclass(frozen=True)
class Spread:
    """The median of several runs, the lowest and the highest."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread | None:
    """None where there is nothing."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Speed:
    """How fast one method is on a square picture of `low_px` a side. What was not measured is None.

    cold: a whole command, from its start to the written file. warm: one more picture with everything loaded.
    ratio: how many times the seconds of the reference, the first weights, in the same round. convolution_share: FLOP/s
    over those of a stack of convolutions of the net's width and dtype, in the same round.
    """

    dataset: str
    image: str
    method: str
    kind: str
    steps: int | None
    low_px: int
    runs: int
    cold_seconds: Spread | None = None
    cold_ratio: Spread | None = None
    cold_cpu_seconds: float | None = None
    cold_peak_memory_mb: float | None = None
    warm_seconds: Spread | None = None
    warm_ratio: Spread | None = None
    warm_cpu_seconds: float | None = None
    warm_peak_memory_mb: float | None = None
    convolution_share: Spread | None = None
    evaluations: int | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    failure: str | None = None

    @property
    def megapixels(self) -> float:
        """Of the small picture."""
        return self.low_px**2 / 1e6

    def per_megapixel(self, seconds: Spread | None) -> float | None:
        """The median, for each megapixel of the small picture."""
        return None if seconds is None else seconds.median / self.megapixels

    def flat(self) -> dict[str, Any]:
        """One line of JSON or CSV: spreads as three figures, seconds per megapixel beside seconds."""
        found: dict[str, Any] = {"megapixels": self.megapixels}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            found[name] = value.median if isinstance(value, Spread) else value
            if name in SPREADS:
                found[f"{name}_lowest"] = None if value is None else value.lowest
                found[f"{name}_highest"] = None if value is None else value.highest
            if name in SECONDS:
                found[f"{name}_per_megapixel"] = self.per_megapixel(value)
        return {"dataset": self.dataset, "image": self.image, "method": self.method} | found


SECONDS = ("cold_seconds", "warm_seconds")
SPREADS = (*SECONDS, "cold_ratio", "warm_ratio", "convolution_share")
COLUMNS = ("method", "steps", "px", "command s", "± %", "s/MP", "times", "CPU s", "MB", "warm s/MP", "± %", "times",
           "bare %")  # fmt: skip
SPEED_NOTE = (
    "In each of several rounds every method enlarged a square picture of so many px a side; medians, and half the way "
    "from the lowest to the highest in percent. Command: from the start of a program to the written file, with its CPU "
    "seconds and peak memory; warm: one more picture with all loaded. Times: how many times the seconds of the first "
    "weights in the same round. Bare: FLOP/s over those of convolutions of the net's width and dtype and nothing else. "
    "Megapixels are of the small picture."
)


def cells(one: Speed) -> list[str]:
    """One line of a table with COLUMNS."""
    if one.failure is not None:
        return [one.method, number(one.steps, 0), str(one.low_px), "failed", *[""] * (len(COLUMNS) - 4)]
    cold, warm, share = one.cold_seconds, one.warm_seconds, one.convolution_share
    return [
        one.method, number(one.steps, 0), str(one.low_px),
        number(_median(cold), 2), number(_percent(cold), 0), number(one.per_megapixel(cold), 1),
        number(_median(one.cold_ratio), 2), number(one.cold_cpu_seconds, 1),
        number(one.cold_peak_memory_mb, 0),
        number(one.per_megapixel(warm), 1), number(_percent(warm), 0),
        number(_median(one.warm_ratio), 2), number(None if share is None else 100 * share.median, 0),
    ]  # fmt: skip


def _median(found: Spread | None) -> float | None:
    return None if found is None else found.median


def _percent(found: Spread | None) -> float | None:
    """Half the way from the lowest to the highest, of the median."""
    return None if found is None else 50 * (found.highest - found.lowest) / found.median
