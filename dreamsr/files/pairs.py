"""Training pictures: a folder of photos of any sizes, cut into crops that are pure functions of (seed, index)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.core import degrade
from dreamsr.core.pixels import from_tensor, to_tensor
from dreamsr.errors import DataError, ImageError
from dreamsr.files.images import FORMATS, probe_picture, read_picture
from dreamsr.files.picture import to_rgb_8_bit

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""(low [h,w,3], large [s*h,s*w,3]) of one whole photo."""


class PhotoFolder:
    """The photos below a folder as (low, large) pairs, made on demand and kept while they fit in `cache_bytes`.

    Raises DataError for a missing or empty folder; `refused` lists what could not be used and why.
    """

    def __init__(self, folder: Path, *, scale: int, min_side_px: int, cache_bytes: int = 6_000_000_000) -> None:
        self.folder = folder
        self.scale = scale
        self.paths, self.sides_px, self.refused = _scan(folder, min_side_px)
        if not self.paths:
            reason = f"; first problem: {self.refused[0]}" if self.refused else ""
            raise DataError(
                f"{folder}: no usable photo found (need {min_side_px} px or more on the short side){reason}; "
                "give --data a folder with pictures"
            )
        self._cache: OrderedDict[tuple[int, int], Pair] = OrderedDict()
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, factor: int) -> Pair:
        """Photo `index` shrunk by `factor` and cropped to a multiple of the scale, with its small version; 8 bit."""
        key = index, factor
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        low, large = pair = self._make(index, factor)
        self._room -= low.nbytes + large.nbytes
        while self._room < 0 and self._cache:
            self._room += sum(part.nbytes for part in self._cache.popitem(last=False)[1])
        self._cache[key] = pair
        return pair

    def _make(self, index: int, factor: int) -> Pair:
        large = degrade.as_stored(
            degrade.shrink(to_tensor(to_rgb_8_bit(read_picture(self.paths[index]).pixels)), factor)
        )
        height, width = (n // self.scale * self.scale for n in large.shape[1:])
        large = large[:, :height, :width]
        low = degrade.shrink(large, self.scale)
        return np.asarray(from_tensor(low), np.uint8), np.asarray(from_tensor(large), np.uint8)

    def fingerprint(self) -> str:
        """sha256 over names and sizes of the files: tells whether two runs saw the same folder."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{path.stat().st_size}\n".encode())
        return digest.hexdigest()


class CropPairs:
    """Pairs (low, x0) by number: the same number and seed give the same pair, in any order, in any process.

    low [3,p,p] and x0 [3,s*p,s*p] float32 in [-1,1] on 8-bit values; p = `crop_low_px`, s = the photos' scale.
    Of `candidates` places in a photo the one with most detail is taken. The photo is first shrunk by one of
    `shrink_factors` (photos are softer at full size than the pictures people enlarge).
    """

    def __init__(
        self, photos: PhotoFolder, *, seed: int, crop_low_px: int, candidates: int, shrink_factors: Sequence[int]
    ) -> None:
        self.photos = photos
        self.seed = seed
        self.crop_low_px = crop_low_px
        self.candidates = candidates
        self.shrink_factors = tuple(shrink_factors)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng([self.seed, number])
        index = int(draw.integers(len(self.photos)))
        low, large = self.photos.pair(index, self._factor(draw, index))
        side, scale = self.crop_low_px, self.photos.scale
        top, left = _most_detailed(draw, low, side, self.candidates)
        bottom, right = top + side, left + side
        turn = int(draw.integers(8))
        crop = large[scale * top : scale * bottom, scale * left : scale * right]
        return _turned(to_tensor(low[top:bottom, left:right]), turn), _turned(to_tensor(crop), turn)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """The pairs of optimizer step `step`: low [B,3,p,p], x0 [B,3,s*p,s*p]."""
        pairs = [self[step * size + i] for i in range(size)]
        return torch.stack([low for low, _ in pairs]), torch.stack([x0 for _, x0 in pairs])

    def _factor(self, draw: np.random.Generator, index: int) -> int:
        """One of the factors at which the photo still holds a crop; 1 where none does."""
        need = smallest_side_px(scale=self.photos.scale, crop_low_px=self.crop_low_px)
        fitting = [f for f in self.shrink_factors if self.photos.sides_px[index] >= need * f]
        return int(draw.choice(fitting)) if fitting else 1


def smallest_side_px(*, scale: int, crop_low_px: int) -> int:
    """The shortest photo side that still holds one crop."""
    return crop_low_px * scale


def _scan(folder: Path, min_side_px: int) -> tuple[list[Path], list[int], list[str]]:
    """(usable files, their short sides, why others are not usable), in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give --data a folder with pictures")
    endings = {ending for endings in FORMATS.values() for ending in endings}
    usable: list[Path] = []
    sides: list[int] = []
    refused: list[str] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file()):
        try:
            info = probe_picture(path)
        except ImageError as error:
            refused.append(str(error))
            continue
        side = min(info.width, info.height)
        if side < min_side_px:
            refused.append(f"{path}: {info.width}x{info.height} is smaller than {min_side_px} px")
        else:
            usable.append(path)
            sides.append(side)
    return usable, sides, refused


def _most_detailed(draw: np.random.Generator, pixels: NDArray[np.uint8], side: int, candidates: int) -> tuple[int, int]:
    """(top, left) of the square window with the largest mean gradient of green among `candidates` random ones."""
    best, most = (0, 0), -1.0
    for _ in range(candidates):
        top = int(draw.integers(pixels.shape[0] - side + 1))
        left = int(draw.integers(pixels.shape[1] - side + 1))
        green = pixels[top : top + side, left : left + side, 1].astype(np.int16)
        detail = float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
        if detail > most:
            best, most = (top, left), detail
    return best


def _turned(image: Tensor, which: int) -> Tensor:
    """One of the eight flips and turns of a square image [3,n,n]."""
    image = image.flip(-1) if which & 1 else image
    image = image.flip(-2) if which & 2 else image
    return image.mT if which & 4 else image
