"""What can be chosen on the page for one picture: some of `upscale`'s settings, with its defaults and its checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamsr.errors import UsageError, printable
from dreamsr.upscaling.naming import parse_format
from dreamsr.upscaling.plan import UpscaleRequest
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.sizes import Size
from dreamsr.upscaling.stages import Options
from dreamsr.weights.inventory import holdings
from dreamsr.weights.registry import AUTOMATIC, automatic_weights, candidates, describe_weights

FIELD = re.compile(r"`([a-z_.]+)`")


@dataclass(frozen=True)
class Choices:
    """How one picture is to be enlarged. Raises UsageError for what cannot be.

    denoise: None for what suits the weights, and with `AUTOMATIC` the picture. format: "" for the picture's own.
    """

    weights: str
    scale: float = 4.0
    denoise: float | None = None
    fidelity: float = 0.0
    format: str = ""
    accept_damaged: bool = False

    def __post_init__(self) -> None:
        self.size, self.settings, parse_format(self.format or None)  # each refuses what cannot be
        candidates(self.weights, self.denoise)

    @property
    def size(self) -> Size:
        """How large the result is to be."""
        return Size(scale=self.scale)

    @property
    def settings(self) -> Settings:
        """How to enlarge."""
        return Settings(fidelity=self.fidelity)

    def options(self, page: Path) -> Options:
        """How to read and write; `page` is to compare before and after."""
        return Options(accept_damaged=self.accept_damaged, compare=page)

    def request(self, picture: Path, max_pixels: int) -> UpscaleRequest:
        """What `upscale PICTURE` would be asked for; the result lies beside the picture."""
        return UpscaleRequest([str(picture)], self.size, format=self.format or None, max_pixels=max_pixels)


@dataclass(frozen=True)
class Offer:
    """Weights that the page names. `denoises`: whether `denoise` may be below 1. `fetch_bytes`: 0 for what is here."""

    name: str
    description: str
    denoises: bool
    fetch_bytes: int = 0


def offers(first: str) -> list[Offer]:
    """All weights of weights.toml that can be had, and `first`, which is chosen unless the user says otherwise.

    No request can name others: what is fetched or read is settled when the server starts.
    """
    found = [
        Offer(
            entry.name,
            entry.description,
            bool(entry.denoise_partner),
            fetch_bytes=0 if holding.path else entry.size_bytes,
        )
        for holding in holdings()
        if holding.state in ("bundled", "cached", "remote") and (entry := holding.entry)
    ]
    denoises = any(entry.denoise_partner for entry in automatic_weights())
    found.insert(0, Offer(AUTOMATIC, "Those that suit each picture, by its scale and its signs of damage", denoises))
    if describe_weights(first) is None and first != AUTOMATIC:
        found.append(Offer(first, "as given to dreamsr serve", denoises=False))
    return sorted(found, key=lambda offer: offer.name != first)


def require_offered(name: str, offered: Sequence[Offer]) -> None:
    """Raise UsageError unless the page names weights of that name."""
    names = [offer.name for offer in offered]
    if name not in names:
        raise UsageError(f"`weights` is {printable(name)}, but it must be one of {', '.join(names)}")


def in_words_of_the_page(message: str, folder: Path) -> str:
    """A message as the page shows it: fields as they are labelled there, names of pictures in place of paths."""
    return FIELD.sub(lambda field: f"“{field[1].replace('_', ' ')}”", without_folders(message, folder))


def without_folders(text: str, folder: Path) -> str:
    """`text` with the names of pictures in place of paths into `folder`."""
    return re.sub(rf"{re.escape(printable(folder))}[\\/]+\d+[\\/]+", "", text)
