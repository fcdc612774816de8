"""Photos in .tar shards, as WebDataset lays them out: indexed once, then read at random without unpacking."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dreamsr.data.photo_files import PhotoFile
from dreamsr.errors import DataError, printable
from dreamsr.folders import ENDINGS


def photos_in_shards(shards: Sequence[Path]) -> list[PhotoFile]:
    """The pictures in uncompressed .tar files, in the order of the shards and of the members in each.

    A picture's name is `shard.tar/member`. Raises DataError for what is not a .tar file.
    """
    return [photo for shard in shards for photo in _photos_in(shard)]


def _photos_in(shard: Path) -> list[PhotoFile]:
    try:
        with tarfile.open(shard, "r:") as archive:
            return [
                PhotoFile(f"{shard.name}/{member.name}", shard, member.size, member.offset_data)
                for member in archive
                if member.isfile() and _is_picture(member.name)
            ]
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(
            f"{printable(shard)}: not a whole, uncompressed .tar file ({error}); "
            "get a whole copy of it, or unpack it if it is compressed"
        ) from None


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")
