"""Tiles that a net sees together, and work that is done ahead: how a device beside the CPU is kept busy."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dreamsr.core.noise import NoiseField
from dreamsr.core.samplers import NoiseSource
from dreamsr.core.tiles import Tile
from dreamsr.upscaling.flat import Evenness

Item = TypeVar("Item")


class Part(NamedTuple):
    """A tile with its pixels [3,h,w] of the small image, and how even these are."""

    tile: Tile
    low: Tensor
    even: Evenness
    is_flat: bool


def together(parts: Iterable[Part], most_px: int) -> Iterator[list[Part]]:
    """Neighbours of one size, as many as have at most so many px of the small image; those that are flat alone."""
    batch: list[Part] = []
    for part in parts:
        if batch:
            alike = batch[0].low.shape == part.low.shape and not (batch[0].is_flat or part.is_flat)
            if not alike or (len(batch) + 1) * part.low[0].numel() > most_px:
                yield batch
                batch = []
        batch.append(part)
    if batch:
        yield batch


def noise_of(parts: list[Part], scale: Fraction | int, field: NoiseField) -> NoiseSource:
    """The noise [B,3,s*h,s*w] of a batch by step; that of the start is made at once."""
    places = [(part.tile.rows.enlarged(scale), part.tile.columns.enlarged(scale)) for part in parts]

    def at(step: int) -> Tensor:
        return torch.stack(
            [field.window(step, down.start, along.start, down.size, along.size) for down, along in places]
        )

    start = at(0)
    return lambda step: start if step == 0 else at(step)


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items; each is made in a thread while the one before it is used. To be closed."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]
