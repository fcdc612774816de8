"""The pictures of a benchmark: truth, small image and how they were found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dreamsr.bench.protocol import KnownSet, Protocol, cut_truth, known_set
from dreamsr.core.pixels import Pixels, most_detailed
from dreamsr.data.shrinking import Degradation
from dreamsr.errors import DataError, ImageError
from dreamsr.folders import ENDINGS
from dreamsr.measure import metrics
from dreamsr.pictures.picture import to_rgb_8_bit
from dreamsr.pictures.read import read_picture

CROP_PX = 96


@dataclass(frozen=True, eq=False)
class Item:
    """One picture: truth [s*h,s*w,3] and small image [h,w,3], uint8, and the window shown in reports."""

    name: str
    truth: Pixels
    low: Pixels
    grey: bool
    fingerprint: str
    window: tuple[int, int, int, int]

    @property
    def megapixels(self) -> float:
        """Of the small image."""
        height, width = int(self.low.shape[0]), int(self.low.shape[1])
        return height * width / 1e6

    def show(self, image: Pixels) -> Pixels:
        """The window (top, left, height, width) of an image of the truth's size."""
        top, left, height, width = self.window
        return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class Dataset:
    """A folder of pictures under one protocol; pictures are read when asked for, one at a time."""

    name: str
    folder: Path
    paths: tuple[Path, ...]
    low_paths: tuple[Path, ...] | None
    protocol: Protocol
    degradation: Degradation
    scale: int
    square_px: int
    known: KnownSet | None = None
    _last: dict[int, Item] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def item(self, number: int) -> Item:
        """Picture `number`, decoded and degraded; the latest one is kept. Raises DataError or ImageError."""
        if number not in self._last:
            self._last.clear()
            self._last[number] = self._read(number)
        return self._last[number]

    def _read(self, number: int) -> Item:
        path = self.paths[number]
        pixels, grey = read_rgb8(path)
        try:
            truth = cut_truth(pixels, self.protocol, scale=self.scale, square_px=self.square_px)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        low = self._low(number, truth)
        return Item(path.stem, truth, low, grey, sha256_of(truth, low), shown_window(truth, self.scale))

    def _low(self, number: int, truth: Pixels) -> Pixels:
        if self.low_paths is None:
            return self.degradation.apply(metrics.planes(truth), self.scale, number)
        low, _ = read_rgb8(self.low_paths[number])
        wanted = (truth.shape[0] // self.scale, truth.shape[1] // self.scale)
        if low.shape[:2] != wanted:
            ratio = truth.shape[0] / low.shape[0]
            raise DataError(
                f"{self.low_paths[number]}: {low.shape[1]}x{low.shape[0]} does not fit "
                f"{self.paths[number].name} at x{self.scale}, which needs {wanted[1]}x{wanted[0]} "
                f"(this looks like x{ratio:.3g}); choose another `scale` or `low`"
            )
        return low


def open_datasets(
    folders: Sequence[Path],
    low_folders: Sequence[Path],
    *,
    protocol: Protocol,
    degradation: Degradation,
    scale: int,
    square_px: int,
    limit: int | None = None,
) -> list[Dataset]:
    """One Dataset per folder, named after it, or after the standard set whose file names it has.

    Raises DataError for a missing or empty folder and for pictures without a partner in the `low_folders`.
    """
    if low_folders and len(low_folders) != len(folders):
        raise DataError(f"{len(folders)} folders of pictures but {len(low_folders)} of `low`; give one for each")
    if low_folders and protocol.square:
        raise DataError("the square protocol makes its own small images; leave out `low` or choose another `protocol`")
    found: list[Dataset] = []
    for number, folder in enumerate(folders):
        paths = pictures_in(folder)
        known = known_set(frozenset(path.stem for path in paths))
        chosen = tuple(paths[:limit])
        low = tuple(partner(path, low_folders[number]) for path in chosen) if low_folders else None
        name = known.name if known else folder.resolve().name
        name = name if all(name != other.name for other in found) else str(folder)
        complete = known if limit is None or limit >= len(paths) else None
        found.append(Dataset(name, folder, chosen, low, protocol, degradation, scale, square_px, complete))
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name. Raises DataError where there is none or names collide."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give folders with large pictures")
    paths = picture_files(folder)
    if not paths:
        raise DataError(f"{folder}: holds no pictures ({' '.join(sorted(ENDINGS))})")
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(f"{folder}: several files are called {twice!r}; results could not be told apart")
    return paths


def picture_files(folder: Path) -> list[Path]:
    """What has the ending of a picture directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())


def partner(path: Path, folder: Path) -> Path:
    """The file in `folder` for the picture `path`: the same stem, or the only one with the stem and a suffix.

    A suffix starts with a character that is neither letter nor digit, or is xN: baby.png, baby_x4.png, babyx4.png.
    Raises DataError where there is none, or several.
    """
    candidates = pictures_in(folder)
    same = [one for one in candidates if one.stem == path.stem]
    found = same or [one for one in candidates if _has_suffix(one.stem, path.stem)]
    if len(found) != 1:
        problem = "no file" if not found else f"{len(found)} files ({', '.join(one.name for one in found)})"
        raise DataError(f"{folder}: {problem} for {path.name}; every picture needs exactly one result of its name")
    return found[0]


def _has_suffix(stem: str, name: str) -> bool:
    rest = stem[len(name) :]
    if not stem.startswith(name) or not rest:
        return False
    return not rest[0].isalnum() or (rest[0] == "x" and rest[1:].isdigit())


def read_rgb8(path: Path) -> tuple[Pixels, bool]:
    """[H,W,3] uint8 and whether the file was grey. 16 bit is rounded, alpha dropped. Raises ImageError."""
    try:
        picture = read_picture(path)
    except ImageError as error:
        raise ImageError(f"{error} It cannot be measured: repair it or take it out of the folder.") from None
    return to_rgb_8_bit(picture.pixels), picture.is_grey


def sha256_of(*arrays: Pixels) -> str:
    """Over shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def shown_window(image: Pixels, border_px: int, side_px: int = CROP_PX) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the most detailed window away from the border.

    Chosen from the truth alone, so no method can be flattered by it.
    """
    height, width = (min(side_px, n - 2 * border_px) for n in image.shape[:2])
    top, left = most_detailed(image, height, width, border_px=border_px)
    return top, left, height, width
