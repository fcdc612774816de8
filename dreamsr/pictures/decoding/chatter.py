"""What the C libraries below Pillow and OpenCV print: caught while they decode, so that no line appears without a name.

Source: libjpeg-turbo's jerror.h for its warnings; libtiff's TIFFErrorExt, whose lines read "function: reason.";
OpenCV's logger.cpp.
"""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

STDERR = 2
LIBRARY_LINE = re.compile(
    rb"\[ *(?:ERROR|WARN|INFO):\d+@[\d.]+\] global "
    rb"|Corrupt JPEG data: |Premature end of JPEG file|Inconsistent progression sequence"
    rb"|(?:\w*(?:TIFF|LogL|LogLuv|Fax|LZW|ZIP|ZSTD|LZMA|WebP|JPEG|JBIG|LERC|PixarLog|Predict|PackBits|Decode|Next)\w*"
    rb"|tempfile\.tif|): "
)

_lock = threading.Lock()


@contextlib.contextmanager
def caught() -> Iterator[list[str]]:
    """Inside, descriptor 2 leads to a file; afterwards the list holds the libraries' lines, in order.

    The descriptor belongs to the whole process: one thread at a time is inside, and what others print meanwhile comes
    out after it. Nothing is caught where standard error is closed.
    """
    lines: list[str] = []
    if sys.__stderr__ is None:
        yield lines
        return
    with _lock, tempfile.TemporaryFile() as file:
        real = os.dup(STDERR)
        os.dup2(file.fileno(), STDERR)
        try:
            yield lines
        finally:
            os.dup2(real, STDERR)
            try:
                file.seek(0)
                theirs = False
                for line in file.read().splitlines(keepends=True):
                    # OpenCV's lines have an empty one behind them.
                    theirs = bool(LIBRARY_LINE.match(line)) or (theirs and not line.strip())
                    if not theirs:
                        os.write(real, line)
                    elif line.strip():
                        lines.append(line.decode(errors="replace").strip().rstrip("."))
            finally:
                os.close(real)
