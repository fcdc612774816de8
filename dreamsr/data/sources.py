"""Where training pictures come from, as the user named it, and the crops cut from them."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from dreamsr.data.crops import CropPairs, PhotoPairs
from dreamsr.data.paired import open_twins
from dreamsr.data.photo_files import PhotoFile, StoredPhotos
from dreamsr.data.scan import OnScan, nothing_usable, pictures_below, usable
from dreamsr.data.settings import CropConfig
from dreamsr.data.shards import photos_in_shards
from dreamsr.data.stream import PREFIX, StreamedPhotos
from dreamsr.drawing.fonts import found_fonts
from dreamsr.errors import DataError, UsageError, printable

CACHE_BYTES = 6_000_000_000

__all__ = ["CACHE_BYTES", "CropPairs", "DataSource", "open_source"]


@dataclass(frozen=True)
class DataSource:
    """What the user named: `data`, or the folders `hr` and `lr` with pairs.

    `data` is a folder of photos of any sizes; a .tar file, or a folder or glob of them; or "hub:user/name[:split]",
    streamed. `exclude` names pictures to leave out, relative to the folder and with slashes (for fine-tuning's
    held-out split); a shard's are called `shard.tar/member`. Raises UsageError unless it is exactly one of the two.
    """

    data: str | None = None
    hr: Path | None = None
    lr: Path | None = None
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        paired = self.hr is not None and self.lr is not None
        lone = (self.hr is None) != (self.lr is None)
        if lone or paired == (self.data is not None):
            raise UsageError("name the pictures by `data`, or by `hr` and `lr` together")


def open_source(
    source: DataSource,
    config: CropConfig,
    *,
    workers: int = 0,
    cache_bytes: int = CACHE_BYTES,
    on_progress: OnScan | None = None,
) -> CropPairs:
    """Look at all the pictures and return their crops.

    `cache_bytes` of decoded photos are kept, shared among `workers` processes; `on_progress` is called with
    (pictures looked at, pictures in all). Raises DataError for unusable data, UsageError for an impossible request.
    """
    room = cache_bytes // max(1, workers)
    if source.data is None:
        if config.drawn_share:
            raise UsageError(
                f"drawn_share is {config.drawn_share:g}, but pictures are drawn only beside `data`: pairs are used as "
                "they are; set it to 0"
            )
        assert source.hr is not None
        assert source.lr is not None
        return open_twins(
            source.hr, source.lr, config, exclude=source.exclude, cache_bytes=room, on_progress=on_progress
        )
    need, fonts = config.smallest_side_px, found_fonts() if config.drawn_share else ()
    if source.data.startswith(PREFIX):
        if source.exclude:
            raise UsageError(f"{printable(source.data)}: pictures cannot be left out of a stream by name")
        return PhotoPairs(StreamedPhotos(source.data, min_side_px=need, cache_bytes=room), config, fonts)
    files = [file for file in find_photos(source.data) if file.name not in source.exclude]
    sound, refused = usable(files, min_side_px=need, on_progress=on_progress)
    if not sound:
        raise nothing_usable(printable(source.data), refused, min_side_px=need)
    return PhotoPairs(StoredPhotos(sound, refused, min_side_px=need, cache_bytes=room), config, fonts)


def find_photos(data: str) -> list[PhotoFile]:
    """The pictures of a folder, or of .tar shards. Raises DataError for anything else."""
    path = Path(data)
    if path.is_dir():
        pictures, shards = pictures_below(path), sorted(path.glob("*.tar"))
        if pictures and shards:
            raise DataError(
                f"{printable(data)}: holds pictures as well as .tar shards; "
                f"give `data` '{printable(path / '*.tar')}' for the shards, or a folder of its own for the pictures"
            )
        return photos_in_shards(shards) if shards else pictures
    matches = sorted(glob.glob(data)) if glob.has_magic(data) and not path.exists() else [data]  # noqa: PTH207 - Path.glob takes no absolute patterns
    if matches and all(match.lower().endswith(".tar") and Path(match).is_file() for match in matches):
        return photos_in_shards([Path(match) for match in matches])
    problem = "is neither a folder nor a .tar file" if path.exists() else "no such folder or .tar file"
    raise DataError(f"{printable(data)}: {problem}; give `data` a folder with pictures, .tar shards or hub:user/name")
