"""Pictures on disk, in one place to import from: picture.py what they are, decode.py reading, encode.py writing."""

from dreamsr.files.atomic import remove_stale_temps, write_bytes_atomically
from dreamsr.files.decode import DEFAULT_MAX_PIXELS, from_pil, is_complete_picture, probe_picture, read_picture
from dreamsr.files.encode import encode_picture, to_pil, write_picture
from dreamsr.files.picture import FORMATS, Metadata, Picture, PictureInfo, format_for, loses_depth

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "Metadata",
    "Picture",
    "PictureInfo",
    "encode_picture",
    "format_for",
    "from_pil",
    "is_complete_picture",
    "loses_depth",
    "probe_picture",
    "read_picture",
    "remove_stale_temps",
    "to_pil",
    "write_bytes_atomically",
    "write_picture",
]
