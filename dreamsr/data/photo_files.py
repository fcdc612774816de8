"""Photos for training: where their bytes lie, how they are decoded, and which of them stay decoded."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dreamsr.data.window import Photo
from dreamsr.errors import DataError, ImageError, printable
from dreamsr.pictures.picture import PictureInfo, to_rgb_8_bit
from dreamsr.pictures.read import probe_picture, read_picture

HEAD_BYTES = 1 << 16
_whole: set[tuple[Path, int | None, int, int]] = set()
"""Files that were found undamaged, as `_version` names them: decoded again and again, each is looked through once.

Processes that are forked know what the one before them knew; others look for themselves.
"""


class Photos(Protocol):
    """Whole photos, of which each crop is cut from one. `refused` tells, a line each, what cannot be used and why."""

    refused: list[str]

    def __len__(self) -> int: ...

    def photo_for(self, seed: int, number: int) -> Photo:
        """The photo [H,W,3] that crop `number` is cut from. Raises DataError."""
        ...

    def fingerprint(self) -> str:
        """Tells whether two runs saw the same photos."""
        ...


@dataclass(frozen=True)
class PhotoFile:
    """One encoded photo: a file of its own, or `size` bytes from `offset` on of an archive.

    `name` is relative to what the user named, with slashes. The file is opened for each reading, so that processes
    share no position in it.
    """

    name: str
    path: Path
    size: int
    offset: int | None = None

    @property
    def label(self) -> str:
        """The name for messages."""
        return printable(self.path if self.offset is None else self.path.parent / self.name)

    def decoded(self, min_side_px: int = 1) -> Photo:
        """[H,W,3], upright. Raises ImageError for a damaged photo, or one with a shorter side."""
        version = self._version()
        try:
            source = self.path if self.offset is None else self._bytes(self.size)
            pixels = to_rgb_8_bit(read_picture(source, known_whole=version in _whole).pixels)
        except ImageError as error:
            raise self._named(error) from None
        if version is not None:
            _whole.add(version)
        self._require_side(pixels.shape[1], pixels.shape[0], min_side_px)
        return pixels

    def probed(self, min_side_px: int = 1) -> PictureInfo:
        """What the header tells; raises ImageError as `decoded`, but for damage behind the header."""
        try:
            info = self._header()
        except ImageError as error:
            raise self._named(error) from None
        self._require_side(info.width, info.height, min_side_px)
        return info

    def _version(self) -> tuple[Path, int | None, int, int] | None:
        """Which photo, and which writing of its file: path, offset, size and time; None where it cannot be seen."""
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return self.path, self.offset, seen.st_size, seen.st_mtime_ns

    def _header(self) -> PictureInfo:
        if self.offset is None:
            return probe_picture(self.path)
        try:
            return probe_picture(self._bytes(min(HEAD_BYTES, self.size)))
        except ImageError:  # a header that needs more, or nothing to read at all
            return probe_picture(self._bytes(self.size))

    def _bytes(self, count: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                data = file.read(count)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}; check the file.") from None
        if len(data) < count:
            raise ImageError("the archive ends in the middle of it; get a whole copy.")
        return data

    def _named(self, error: ImageError) -> ImageError:
        return error if self.offset is None else ImageError(f"{self.label}: {error}")

    def _require_side(self, width: int, height: int, min_side_px: int) -> None:
        if min(width, height) < min_side_px:
            raise ImageError(f"{self.label}: {width}x{height} is smaller than the {min_side_px} px of a crop")


class PhotoCache:
    """Decoded photos, the least recently used forgotten first once they pass `room_bytes`; the last is always kept.

    A copy for another process starts empty.
    """

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self._held: OrderedDict[Hashable, Photo] = OrderedDict()
        self._held_bytes = 0

    def get(self, key: Hashable) -> Photo | None:
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: Hashable, photo: Photo) -> None:
        self._held_bytes += photo.nbytes
        while self._held_bytes > self.room_bytes and self._held:
            self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        self._held[key] = photo

    def read(self, file: PhotoFile, min_side_px: int) -> Photo:
        """The photo in `file`, decoded if need be. Raises DataError: the file was sound when training began."""
        photo = self.get(file)
        if photo is None:
            try:
                photo = file.decoded(min_side_px)
            except ImageError as error:
                raise DataError(
                    f"{error} The photo cannot be trained on; repair it or take it out of the data, then train again."
                ) from None
            self.put(file, photo)
        return photo

    def __getstate__(self) -> dict[str, Any]:
        return {"room_bytes": self.room_bytes, "_held": OrderedDict(), "_held_bytes": 0}


class StoredPhotos:
    """Photos in files and archives. Each crop is cut from any of them with the same probability."""

    def __init__(
        self, files: Sequence[PhotoFile], refused: list[str], *, min_side_px: int = 1, cache_bytes: int = 0
    ) -> None:
        self.files = list(files)
        self.refused = refused
        self.min_side_px = min_side_px
        self._cache = PhotoCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.files)

    def photo_for(self, seed: int, number: int) -> Photo:
        index = int(np.random.default_rng([seed, number]).integers(len(self.files)))
        return self._cache.read(self.files[index], self.min_side_px)

    def fingerprint(self) -> str:
        return fingerprint_of(self.files)


def fingerprint_of(files: Iterable[PhotoFile]) -> str:
    """sha256 over names and sizes, so that it costs nothing and moving the data does not change it."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
