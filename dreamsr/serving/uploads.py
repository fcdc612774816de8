"""What a browser sends becomes a file: under a name that every disk takes, and no larger than a picture may be."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from dreamsr.errors import ImageError, OutputError, printable

NAME_BYTES = 180
"""Of the 255 that a name may have: room for what results and files in the making add."""
SUFFIX_CHARS = 10


def safe_name(name: str) -> str:
    """`name` without folders and without what is no part of a name on Linux, macOS or Windows."""
    encoding = sys.getfilesystemencoding()
    base = re.split(r"[/\\]", name)[-1].encode(encoding, "replace").decode(encoding, "replace")
    base = "".join("_" if c in '<>:"|?*' or not c.isprintable() else c for c in base).strip(" .") or "picture"
    path = Path(base)
    suffix = path.suffix if len(path.suffix) <= SUFFIX_CHARS else ""
    stem = base.removesuffix(suffix)
    while len((stem + suffix).encode(encoding)) > NAME_BYTES:
        stem = stem[:-1]  # by characters, of which half would be none
    return stem + suffix


def require_size(name: str, size: int, limit_bytes: int) -> None:
    """Raise ImageError for more bytes than a picture may have."""
    if size > limit_bytes:
        raise ImageError(f"{printable(name)} is larger than the {limit_bytes} bytes a picture may have; shrink it.")


async def receive(parts: AsyncIterator[bytes], path: Path, limit_bytes: int) -> None:
    """Write what arrives to `path`, part by part. Raises ImageError for too much, OutputError where it cannot be."""
    size = 0
    try:
        with path.open("xb") as file:
            async for part in parts:
                size += len(part)
                require_size(path.name, size, limit_bytes)
                file.write(part)
    except OSError as error:
        told = f"{printable(path.name)} cannot be kept: {error.strerror}"
        raise OutputError(f"{told}; remove pictures from the list, or set TMPDIR to a larger disk") from None
