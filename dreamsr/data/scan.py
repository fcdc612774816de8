"""A look at all training photos before the first step: what cannot be used is told then, not in the third night."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dreamsr.data.photo_files import PhotoFile
from dreamsr.errors import DataError, ImageError
from dreamsr.folders import find_sources

FULL_CHECK_PHOTOS = 5_000
"""Up to so many photos, each is decoded (.04 s for 2.5 megapixels of JPEG on one core); of more, headers are read."""

OnScan = Callable[[int, int], None]
"""Called with (photos looked at, photos in all)."""

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH = 64


def pictures_below(folder: Path) -> list[PhotoFile]:
    """The files with a picture's ending in a folder and its folders, hidden ones left out, sorted."""
    sources, _ = find_sources([str(folder)], recursive=True)
    paths = [source.path for source in sources if not source.named]
    return [PhotoFile(path.relative_to(folder).as_posix(), path, path.stat().st_size) for path in paths]


def usable(
    files: Sequence[PhotoFile], *, min_side_px: int, on_progress: OnScan | None = None
) -> tuple[list[PhotoFile], list[str]]:
    """(photos that can be decoded and are large enough, why the others are not), in the order given."""

    def problem(file: PhotoFile) -> str | None:
        try:
            file.decoded(min_side_px) if len(files) <= FULL_CHECK_PHOTOS else file.probed(min_side_px)
        except ImageError as error:
            return str(error)
        return None

    problems = list(in_parallel(problem, files, on_progress))
    sound = [file for file, reason in zip(files, problems, strict=True) if reason is None]
    return sound, [reason for reason in problems if reason is not None]


def in_parallel(
    check: Callable[[Item], Result], items: Sequence[Item], on_progress: OnScan | None = None
) -> Iterator[Result]:
    """`check` of every item, in their order, on a few threads: decoders leave Python's lock alone."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(items), BATCH):  # in batches, so that ctrl-C need not wait for all
            for done, result in enumerate(pool.map(check, items[first : first + BATCH]), first + 1):
                if on_progress is not None:
                    on_progress(done, len(items))
                yield result


def nothing_usable(what: str, refused: Sequence[str], *, min_side_px: int) -> DataError:
    """The error for data of which nothing is left."""
    reason = f"; first problem: {refused[0]}" if refused else ""
    return DataError(
        f"{what}: no usable photo found (need {min_side_px} px or more on the short side){reason}; "
        "give `data` a folder with pictures, .tar shards or hub:user/name"
    )
