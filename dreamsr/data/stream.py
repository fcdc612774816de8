"""Photos streamed from the Hugging Face Hub, in blocks, so that crops stay pure functions of their number.

A block is 64 photos in the order of the stream. Its crops, 16 from each photo, are shuffled by (seed, block); going
back to an earlier block starts the stream again, going on skips; behind the end comes the beginning.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dreamsr.data.photo_files import PhotoCache
from dreamsr.data.window import Photo
from dreamsr.errors import DataError, ImageError, UsageError, printable
from dreamsr.pictures.picture import to_rgb_8_bit
from dreamsr.pictures.read import read_picture

PREFIX = "hub:"
PHOTOS_PER_BLOCK = 64
CROPS_PER_PHOTO = 16

Encoded = bytes | Path


class StreamedPhotos:
    """The photos of `hub:user/name[:split]` (split "train" unless given), never all on this machine.

    Each process reads the stream for itself. A photo that cannot be used is listed in `refused` by the process that
    meets it, and the next one of the block takes its place. Raises UsageError without the `datasets` library,
    DataError for an unknown data set, one without pictures, or a broken connection.
    """

    def __init__(self, text: str, *, min_side_px: int, cache_bytes: int = 0) -> None:
        name, split = _parts(text)
        self.refused: list[str] = []
        self.min_side_px = min_side_px
        self._stream = _Stream(name, split)
        self._cache = PhotoCache(cache_bytes)
        self._block: tuple[int, list[Encoded]] | None = None
        self._unusable: set[tuple[int, int]] = set()
        first = self._encoded(0)
        self._fingerprint = _fingerprint(split, first)
        for index in range(PHOTOS_PER_BLOCK):
            self._photo(0, index)
        self.photo_for(0, 0)  # raises where none can be used

    def __len__(self) -> int:
        """What the data set's card says; where it says nothing, the photos of one block."""
        return self._stream.stated_length or PHOTOS_PER_BLOCK

    def photo_for(self, seed: int, number: int) -> Photo:
        block, slot = divmod(number, PHOTOS_PER_BLOCK * CROPS_PER_PHOTO)
        order = np.random.default_rng([seed, block]).permutation(PHOTOS_PER_BLOCK * CROPS_PER_PHOTO)
        drawn = int(order[slot]) % PHOTOS_PER_BLOCK
        for index in (*range(drawn, PHOTOS_PER_BLOCK), *range(drawn)):
            photo = self._photo(block, index)
            if photo is not None:
                return photo
        raise DataError(
            f"{self._stream.label}: none of {PHOTOS_PER_BLOCK} photos in a row can be used; "
            f"first problem: {self.refused[0]}; choose another data set"
        )

    def fingerprint(self) -> str:
        """sha256 over the split's name and the first block."""
        return self._fingerprint

    def _photo(self, block: int, index: int) -> Photo | None:
        """One of a block, or None where it cannot be used."""
        key = (block, index)
        if key in self._unusable:
            return None
        photo = self._cache.get(key)
        if photo is None:
            try:
                photo = self._decoded(block, index)
            except ImageError as error:
                self._unusable.add(key)
                self.refused.append(str(error))
                return None
            self._cache.put(key, photo)
        return photo

    def _decoded(self, block: int, index: int) -> Photo:
        label = f"{self._stream.label}, photo {block * PHOTOS_PER_BLOCK + index}"
        try:
            photo = to_rgb_8_bit(read_picture(self._encoded(block)[index]).pixels)
        except ImageError as error:
            raise ImageError(f"{label}: {error}") from None
        if min(photo.shape[:2]) < self.min_side_px:
            size = f"{photo.shape[1]}x{photo.shape[0]}"
            raise ImageError(f"{label}: {size} is smaller than the {self.min_side_px} px of a crop")
        return photo

    def _encoded(self, block: int) -> list[Encoded]:
        if self._block is None or self._block[0] != block:
            self._block = block, self._stream.read(block * PHOTOS_PER_BLOCK, PHOTOS_PER_BLOCK)
        return self._block[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": None}


class _Stream:
    """The encoded photos of a data set by their position in an endless row: behind the end comes the beginning."""

    def __init__(self, name: str, split: str) -> None:
        self.name = name
        self.split = split
        self.label = f"{PREFIX}{printable(name)}:{split}"
        self.stated_length: int | None = None
        self._length: int | None = None
        self._rows: Iterator[Encoded] | None = None
        self._position = 0
        self._process = os.getpid()

    def read(self, start: int, count: int) -> list[Encoded]:
        """`count` photos from position `start` on. Raises DataError."""
        self._seek(start)
        photos: list[Encoded] = []
        while len(photos) < count:
            photo = self._next()
            if photo is None:
                self._restart()
            else:
                photos.append(photo)
        return photos

    def _seek(self, start: int) -> None:
        target = start % self._length if self._length else start
        if self._rows is None or self._process != os.getpid() or target < self._position:
            self._restart()
        while self._position < target:
            if self._next() is None:
                self._seek(start)
                return

    def _next(self) -> Encoded | None:
        """The photo at the position, which moves on; None at the end, whose place is remembered."""
        assert self._rows is not None
        try:
            photo = next(self._rows, None)
        except DataError:
            raise
        except Exception as error:  # whatever the network, the files and their parsers raise
            raise self._broken(error) from None
        if photo is not None:
            self._position += 1
            return photo
        if self._position == 0:
            raise DataError(f"{self.label}: holds no photos; choose another data set or split")
        self._length = self._position
        return None

    def _restart(self) -> None:
        self._rows = self._opened()
        self._position = 0
        self._process = os.getpid()

    def _opened(self) -> Iterator[Encoded]:
        datasets = _library()
        try:
            rows = datasets.load_dataset(self.name, split=self.split, streaming=True)
            column = _picture_column(rows, datasets)
            rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        except Exception as error:
            raise self._broken(error) from None
        splits = rows.info.splits or {}
        self.stated_length = splits[self.split].num_examples if self.split in splits else None
        # Iterating over the rows themselves would, in a loader's worker, give only a share of them.
        return (_encoded(batch[column][0], self.label) for batch in rows.iter(batch_size=1))

    def _broken(self, error: Exception) -> DataError:
        reason = printable(" ".join(str(error).split()) or type(error).__name__)[:300]
        return DataError(f"{self.label}: cannot be read ({reason}); check the name, the split and the connection")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None, "_position": 0}


def _parts(text: str) -> tuple[str, str]:
    """(name, split) of `hub:user/name[:split]`."""
    match = re.fullmatch(rf"{PREFIX}(.*?[^:])(?::(\w+))?", text)
    if match is None:
        raise UsageError(f"`data` is {printable(text)!r}, but a data set on the Hub is named hub:user/name[:split]")
    return match[1], match[2] or "train"


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UsageError('`data` hub:... needs the datasets library: pip install "dreamsr[stream]"') from None
    return datasets


def _picture_column(rows: Any, datasets: Any) -> str:
    """The column "image" if it holds pictures, else the first that does."""
    found = [name for name, feature in (rows.features or {}).items() if isinstance(feature, datasets.Image)]
    if not found:
        raise ValueError(f"no column of pictures among {', '.join(rows.features or ()) or 'unknown ones'}")
    return "image" if "image" in found else str(found[0])


def _encoded(cell: Any, label: str) -> Encoded:
    """The bytes in a cell of a picture column, or the file that holds them; no bytes for a missing picture."""
    if cell is None:
        return b""
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    if cell["path"] is not None and Path(cell["path"]).is_file():
        return Path(cell["path"])
    raise DataError(f"{label}: holds the names of pictures only; choose a data set that holds the pictures")


def _fingerprint(split: str, photos: list[Encoded]) -> str:
    digest = hashlib.sha256(split.encode())
    for photo in photos:
        digest.update(hashlib.sha256(photo if isinstance(photo, bytes) else photo.read_bytes()).digest())
    return digest.hexdigest()
