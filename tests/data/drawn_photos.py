"""Drawn photos and small training runs for the tests of training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.data.crops import CropPairs
from dreamsr.data.settings import CropConfig
from dreamsr.pictures.read import from_pil
from dreamsr.pictures.write import write_picture


def run(*, scale: int = 4, crop_low_px: int = 16, candidates: int = 1, seed: int = 5, **rest) -> CropConfig:
    return CropConfig(scale=scale, crop_low_px=crop_low_px, crop_candidates=candidates, seed=seed, **rest)


def noise(height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """[H,W,3] with structure of all sizes, another for every seed."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    total = np.zeros((height, width, 3))
    for wavelength in (7, 12, 20, 35, 60):
        angle, phase = draw.uniform(0, np.pi), draw.uniform(0, 6, 3)
        along = (np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / wavelength
        total += np.sin(along[..., None] + phase)
    return (128 + 25 * total).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, from_pil(Image.fromarray(pixels)))
    return path


def draw_photos(folder: Path) -> Path:
    """Three photos: a busy one, one busy on its right half only, and a grey one."""
    busy = noise(150, 211)
    half = busy.copy()
    half[:, :150] = 90
    save(folder / "busy.png", busy)
    save(folder / "sub" / "half.png", half)
    save(folder / "grey.png", busy[..., 0])
    return folder


def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


class Numbered(torch.utils.data.Dataset):
    """The first crops, as a loader wants them."""

    def __init__(self, pairs: CropPairs, count: int) -> None:
        self.pairs = pairs
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if number >= self.count:
            raise IndexError
        return self.pairs[number]


def loaded(pairs: CropPairs, count: int, *, workers: int) -> list[tuple[Tensor, Tensor]]:
    """The first crops as they come from loaders' workers."""
    loader = torch.utils.data.DataLoader(Numbered(pairs, count), batch_size=None, num_workers=workers)
    return [(low, x0) for low, x0 in loader]
