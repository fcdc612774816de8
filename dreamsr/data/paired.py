"""Crops of given pairs: large pictures in one folder, their small versions, made elsewhere, in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreamsr.data.crops import crop_draws, most_detailed_place, turned
from dreamsr.data.photo_files import PhotoCache, PhotoFile, fingerprint_of
from dreamsr.data.scan import FULL_CHECK_PHOTOS, OnScan, in_parallel, nothing_usable, pictures_below
from dreamsr.data.settings import CropConfig
from dreamsr.data.window import Photo, inner
from dreamsr.errors import DataError, ImageError, printable

COMPARED_PX = 32
LEAST_DETAIL = 2.0
LEAST_SIMILARITY = 0.5
"""Of 15 photos against small versions with heavy noise and JPEG 20: the same .97 and above, another .23 and below."""


@dataclass(frozen=True)
class Twin:
    """A large picture and its small version."""

    large: PhotoFile
    low: PhotoFile


class TwinPairs:
    """Pairs cut from twins; neither shrunk nor damaged further. Otherwise as `pairs.PhotoPairs`."""

    def __init__(self, twins: Sequence[Twin], refused: list[str], config: CropConfig, *, cache_bytes: int = 0) -> None:
        self.twins = list(twins)
        self.refused = refused
        self.fonts: tuple[str, ...] = ()
        self.config = config
        self._cache = PhotoCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.twins)

    def fingerprint(self) -> str:
        return fingerprint_of(file for twin in self.twins for file in (twin.large, twin.low))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        index = int(np.random.default_rng([self.config.seed, number]).integers(len(self.twins)))
        draw = crop_draws(self.config.seed, number)
        scale, side = self.config.scale, self.config.crop_low_px
        low = self._cache.read(self.twins[index].low, side)
        large = self._cache.read(self.twins[index].large, scale * side)
        height, width = (min(n, m // scale) for n, m in zip(low.shape[:2], large.shape[:2], strict=True))
        green = low[:height, :width, 1]
        top, left = most_detailed_place(draw, green, side, self.config.crop_candidates)
        crops = inner(low, top, left, side), inner(large, scale * top, scale * left, scale * side)
        return turned(*crops, int(draw.integers(8)))


def open_twins(
    hr: Path,
    lr: Path,
    config: CropConfig,
    *,
    exclude: frozenset[str] = frozenset(),
    cache_bytes: int = 0,
    on_progress: OnScan | None = None,
) -> TwinPairs:
    """The pairs in two folders; `exclude` names large pictures to leave out, relative to `hr`.

    Pairs with a file that cannot be decoded or is too small stand in `refused`. Raises DataError, with the first
    offenders and their number, where a picture lacks its partner, or sizes or contents of partners do not fit.
    """
    twins = twins_below(hr, lr, exclude)
    complete = len(twins) <= FULL_CHECK_PHOTOS
    results = list(in_parallel(lambda twin: _problem(twin, config, complete=complete), twins, on_progress))
    misfits = [str(problem) for problem in results if isinstance(problem, DataError)]
    if misfits:
        raise DataError(
            f"{_first(misfits)}; {len(misfits)} of {len(twins)} pairs do not fit: "
            "sort out the folders, or choose another scale"
        )
    refused = [str(problem) for problem in results if isinstance(problem, ImageError)]
    sound = [twin for twin, problem in zip(twins, results, strict=True) if problem is None]
    if not sound:
        raise nothing_usable(printable(hr), refused, min_side_px=config.smallest_side_px)
    return TwinPairs(sound, refused, config, cache_bytes=cache_bytes)


def twins_below(hr: Path, lr: Path, exclude: frozenset[str]) -> list[Twin]:
    """The pairs in two folders, but for large pictures of these names. Raises DataError as `matched` and for a missing
    folder."""
    for field, folder in (("hr", hr), ("lr", lr)):
        if not folder.is_dir():
            raise DataError(f"{printable(folder)}: no such folder; give `{field}` a folder with pictures")
    return [twin for twin in matched(pictures_below(hr), pictures_below(lr)) if twin.large.name not in exclude]


def matched(large: Sequence[PhotoFile], low: Sequence[PhotoFile]) -> list[Twin]:
    """Each large picture with the small one of its name, in the order of the large ones.

    The names may differ in the extension and in a suffix of the small one, as in 0001.png and 0001x4.png. Raises
    DataError unless each has exactly one partner.
    """
    by_stem: dict[str, PhotoFile] = {}
    for file in large:
        other = by_stem.setdefault(_stem(file), file)
        if other is not file:
            raise DataError(f"{other.label} and {file.label}: their small versions would have the same name")
    partners: dict[str, list[PhotoFile]] = {stem: [] for stem in by_stem}
    alone: list[str] = []
    for file in low:
        stem = next((head for head in _heads(_stem(file)) if head in by_stem), None)
        if stem is None:
            alone.append(f"{file.label}: has no large picture")
        else:
            partners[stem].append(file)
    for stem, found in partners.items():
        if len(found) != 1:
            names = f" ({', '.join(file.name for file in found[:3])})" if found else ""
            alone.append(f"{by_stem[stem].label}: has {len(found) or 'no'} small pictures{names}")
    if alone:
        raise DataError(f"{_first(alone)}; {len(alone)} pictures without exactly one partner: both folders must agree")
    return [Twin(by_stem[stem], found[0]) for stem, found in partners.items()]


def similarity(large: Photo, low: Photo) -> float | None:
    """Correlation, in [-1,1], of the details that both hold at 32 px or less; None where `large` has none there.

    Without the coarsest structure, which many photos share: a bright sky above dark ground.
    """
    side = min(COMPARED_PX, *low.shape[:2])
    a, b = _details(large, side), _details(low, side)
    if a.std() < LEAST_DETAIL:
        return None
    return float((a * b).mean() / max(1e-9, a.std() * b.std()))


def _details(photo: Photo, side: int) -> NDArray[np.float32]:
    """[side,side] levels of grey, less what a picture of an eighth of the side can hold; mean 0."""
    box = Image.Resampling.BOX
    grey = Image.fromarray(photo).convert("L").resize((side, side), box).convert("F")
    coarse = grey.resize((max(1, side // 8),) * 2, box).resize((side, side), Image.Resampling.BICUBIC)
    details = np.asarray(grey, np.float32) - np.asarray(coarse, np.float32)
    return np.asarray(details - details.mean(), np.float32)


def _problem(twin: Twin, config: CropConfig, *, complete: bool) -> DataError | ImageError | None:
    """Why a pair cannot be used: ImageError for one file, DataError where the two do not fit each other."""
    scale, side = config.scale, config.crop_low_px
    try:
        if complete:
            large, low = twin.large.decoded(), twin.low.decoded()
            sizes = large.shape[:2], low.shape[:2]
        else:
            header, low_header = twin.large.probed(), twin.low.probed()
            sizes = (header.height, header.width), (low_header.height, low_header.width)
    except ImageError as error:
        return error
    misfit = _misfit(twin, *sizes, scale)
    if misfit is not None:
        return misfit
    if min(sizes[1]) < side or min(sizes[0]) < scale * side:
        return ImageError(f"{twin.low.label}: {sizes[1][1]}x{sizes[1][0]} is smaller than the {side} px of a crop")
    alike = similarity(large, low) if complete else None
    if alike is not None and alike < LEAST_SIMILARITY:
        return DataError(f"{twin.low.label}: is not {twin.large.name} made small (similarity {alike:.2f} of 1)")
    return None


def _misfit(twin: Twin, large: tuple[int, ...], low: tuple[int, ...], scale: int) -> DataError | None:
    """Whether the sides (height, width) are in the ratio `scale`, the odd pixels cut off or rounded up."""
    if all(n in (m // scale, -(-m // scale)) for n, m in zip(low, large, strict=True)):
        return None
    return DataError(
        f"{twin.low.label}: {low[1]}x{low[0]} does not fit {twin.large.name} of {large[1]}x{large[0]} at x{scale} "
        f"(this looks like x{large[0] / low[0]:.3g})"
    )


def _stem(file: PhotoFile) -> str:
    return PurePosixPath(file.name).with_suffix("").as_posix()


def _heads(stem: str) -> list[str]:
    """The names that `stem` may stand for, itself first: without a suffix that starts with a sign, or is xN."""
    heads = [stem]
    for at in range(len(stem) - 1, 0, -1):
        rest = stem[at:]
        if not rest[0].isalnum() or (rest[0] == "x" and rest[1:].isdigit()):
            heads.append(stem[:at])
    return heads


def _first(problems: Sequence[str]) -> str:
    return "; ".join(problems[:3])
