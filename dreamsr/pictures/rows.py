"""Files written row by row, while the rest of the picture is still to come: PNG, TIFF and JPEG.

An encoder takes rows [n,W,C] downward, as many at a time as there are, and gives the file when all have come. What it
holds meanwhile is the file so far, never the picture.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dreamsr.pictures.decoding.jpeg import END_OF_IMAGE, START_OF_SCAN
from dreamsr.pictures.picture import Array
from dreamsr.pictures.png import SIGNATURE, chunk
from dreamsr.pictures.tiff import (
    COMPRESSION,
    EXTRA_SAMPLES,
    LONG,
    LONG8,
    PREDICTOR,
    RATIONAL,
    RESOLUTION_UNIT,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SHORT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    X_RESOLUTION,
    Y_RESOLUTION,
    ByteOrder,
    Layout,
    Node,
    layout_tags,
    numbers,
    write_directory,
    write_header,
)

PNG_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
PNG_LEVEL = 4
PNG_BLOCK_BYTES = 1 << 18
"""Filtered at once: as much as stays in a processor's cache with its five candidates."""
TIFF_LEVEL = 5
TIFF_STRIP_BYTES = 1 << 20
CLASSIC_LIMIT_BYTES = 2**32 - 2**20
RESTARTS = 8
"""Restart markers of JPEG are counted modulo this."""
JPEG_BLOCK_ROWS = 4 * RESTARTS * 8
START_OF_FRAME = (0xC0, 0xC1)


class RowEncoder(Protocol):
    """What takes rows and gives a file."""

    def add(self, rows: Array) -> None: ...
    def finish(self) -> bytes: ...


class Blocks:
    """Rows as they come -> blocks of `height` rows; what is left over at the end is lower."""

    def __init__(self, height: int) -> None:
        self.height = height
        self._kept: list[Array] = []

    def add(self, rows: Array) -> Iterator[Array]:
        """The blocks that are complete with these rows."""
        self._kept.append(rows)
        if sum(len(kept) for kept in self._kept) < self.height:
            return
        joined = self._kept[0] if len(self._kept) == 1 else np.concatenate(self._kept)
        ready = len(joined) // self.height * self.height
        for top in range(0, ready, self.height):
            yield joined[top : top + self.height]
        self._kept = [joined[ready:].copy()]  # the rest need not be held for it

    def rest(self) -> Iterator[Array]:
        """What no block was complete with, if anything."""
        left = np.concatenate(self._kept)
        if len(left):
            yield left


# --- PNG --------------------------------------------------------------------------------------------------------------


class PngRows:
    """uint8 or uint16 [n,W,C], C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.

    `begin` makes the file's beginning, up to the pixels, of its IHDR. Source: PNG, third edition, sections 9, 10, 12.7.
    """

    def __init__(self, height: int, width: int, channels: int, bits: int, begin: Callable[[bytes], bytes]) -> None:
        header = struct.pack(">LLBBBBB", width, height, bits, PNG_KINDS[channels], 0, 0, 0)
        self._parts = [begin(SIGNATURE + chunk(b"IHDR", header))]
        self._pixel_bytes = channels * bits // 8
        self._packer = zlib.compressobj(PNG_LEVEL, strategy=zlib.Z_FILTERED)
        self._above = np.zeros((1, width * self._pixel_bytes), np.uint8)

    def add(self, rows: Array) -> None:
        line_bytes = self._above.shape[1]
        lines = max(1, PNG_BLOCK_BYTES // line_bytes)
        packed = []
        for top in range(0, len(rows), lines):
            block = rows[top : top + lines]
            block = block.astype(block.dtype.newbyteorder(">"), order="C", copy=False)
            raw = block.view(np.uint8).reshape(-1, line_bytes)  # [n,bytes]
            packed.append(self._packer.compress(filtered(raw, self._above, self._pixel_bytes)))
            self._above = raw[-1:].copy()
        self._append(b"".join(packed))

    def finish(self) -> bytes:
        self._append(self._packer.flush())
        return b"".join([*self._parts, chunk(b"IEND", b"")])

    def _append(self, packed: bytes) -> None:
        if packed:
            self._parts.append(chunk(b"IDAT", packed))


def filtered(rows: Array, above: Array, pixel_bytes: int) -> bytes:
    """Lines of bytes [n,m] behind the line `above` [1,m], each by that of PNG's filters which leaves least (9.2, 12.7).

    Enlarged photographs want the mean of left and up, drawings Paeth's predictor.
    """
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    up = np.concatenate([above, rows[:-1]])
    left[:, pixel_bytes:], corner[:, pixel_bytes:] = rows[:, :-pixel_bytes], up[:, :-pixel_bytes]
    mean = (left >> 1) + (up >> 1) + (left & up & 1)
    choices = (rows, rows - left, rows - up, rows - mean, rows - _paeth(left, up, corner))  # modulo 256
    costs = [np.minimum(choice, 0 - choice).sum(axis=1, dtype=np.int64) for choice in choices]
    best = np.argmin(costs, axis=0)  # [n]
    result = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    result[:, 0] = best
    for number, choice in enumerate(choices):
        result[best == number, 1:] = choice[best == number]
    return result.tobytes()


def _paeth(left: Array, up: Array, corner: Array) -> Array:
    """Whichever of the three is nearest to left + up - corner, the first of equals; all in bytes."""
    to_left, to_up = _apart(up, corner), _apart(left, corner)
    nearer = np.where(to_left <= to_up, left, up)
    # Unless the corner lies between the others, it is as far as both of them together.
    is_between = (np.minimum(left, up) <= corner) & (corner <= np.maximum(left, up))
    is_nearest = is_between & (_apart(to_left, to_up) < np.minimum(to_left, to_up))
    return np.where(is_nearest, corner, nearer)


def _apart(one: Array, other: Array) -> Array:
    difference: Array = np.maximum(one, other) - np.minimum(one, other)
    return difference


# --- TIFF -------------------------------------------------------------------------------------------------------------


class TiffRows:
    """uint8 or uint16 [n,W,C], C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha: deflate, horizontal predictor.

    tags  further entries, whose values are in `order`; those that describe the layout are overruled
    """

    def __init__(
        self, height: int, width: int, channels: int, bits: int, *, tags: Mapping[int, Node], order: ByteOrder = "<"
    ) -> None:
        row_bytes = width * channels * bits // 8
        rows = max(1, min(height, TIFF_STRIP_BYTES // row_bytes))
        own = layout_tags((height, width, channels), bits, 1 if channels < 3 else 2, order)
        own[COMPRESSION], own[PREDICTOR] = numbers(SHORT, [8], order), numbers(SHORT, [2], order)
        own[ROWS_PER_STRIP] = numbers(LONG, [rows], order)
        own[SAMPLE_FORMAT] = numbers(SHORT, [1] * channels, order)
        if channels in (2, 4):
            own[EXTRA_SAMPLES] = numbers(SHORT, [2], order)  # alpha, not multiplied into the colours
        self._tags, self._order = {**tags, **own}, order
        self._blocks = Blocks(rows)
        self._strips: list[bytes] = []

    def add(self, rows: Array) -> None:
        self._strips += [_deflated(block, self._order) for block in self._blocks.add(rows)]

    def finish(self) -> bytes:
        self._strips += [_deflated(block, self._order) for block in self._blocks.rest()]
        strips, order = self._strips, self._order
        payload_bytes = sum(len(strip) for strip in strips) + len(strips) * 16
        layout = Layout(order, big=payload_bytes > CLASSIC_LIMIT_BYTES)
        parts = [write_header(layout, 0)]
        offsets = []
        at = len(parts[0])
        for strip in strips:
            offsets.append(at)
            parts += [strip, b"\0" * (len(strip) % 2)]
            at += len(strip) + len(strip) % 2
        parts[0] = write_header(layout, at)
        long_type = LONG8 if layout.big else LONG
        places = {
            STRIP_OFFSETS: numbers(long_type, offsets, order),
            STRIP_BYTES: numbers(long_type, [len(strip) for strip in strips], order),
        }
        # Both are required; of no unit, they say nothing.
        defaults: dict[int, Node] = {tag: numbers(RATIONAL, [1, 1], order) for tag in (X_RESOLUTION, Y_RESOLUTION)}
        defaults[RESOLUTION_UNIT] = numbers(SHORT, [1], order)
        parts.append(write_directory({**defaults, **self._tags, **places}, layout, at))
        return b"".join(parts)


def _deflated(rows: Array, order: ByteOrder) -> bytes:
    differences = rows.copy()  # [h,W,C]
    differences[:, 1:] -= rows[:, :-1]  # wraps around, as the predictor wants
    return zlib.compress(differences.astype(rows.dtype.newbyteorder(order), copy=False).tobytes(), TIFF_LEVEL)


# --- JPEG -------------------------------------------------------------------------------------------------------------


class JpegRows:
    """uint8 [n,W,C], C = 1 grey, 3 RGB: 4:4:4, every row of blocks behind a restart marker.

    Rows are coded a few at a time by Pillow and joined there, where nothing before counts: the same as all at once.
    `options` are Pillow's; `begin` changes the file's beginning, up to the pixels. Source: T.81, B.2 and F.1.1.5.
    """

    def __init__(self, height: int, options: Mapping[str, Any], begin: Callable[[bytes], bytes]) -> None:
        self._height, self._options, self._begin = height, options, begin
        self._blocks = Blocks(JPEG_BLOCK_ROWS)
        self._parts: list[bytes] = []

    def add(self, rows: Array) -> None:
        self._join(self._blocks.add(rows))

    def finish(self) -> bytes:
        self._join(self._blocks.rest())
        return b"".join([*self._parts, END_OF_IMAGE])

    def _join(self, blocks: Iterator[Array]) -> None:
        for rows in blocks:
            file, samples = io.BytesIO(), np.ascontiguousarray(rows[..., 0] if rows.shape[2] == 1 else rows)
            extra = self._options if not self._parts else {k: v for k, v in self._options.items() if k == "quality"}
            image = Image.fromarray(samples)
            image.save(file, "JPEG", subsampling=0, restart_marker_rows=1, **extra)
            data = file.getvalue()
            frame, scan = _places(data)
            if self._parts:
                self._parts.append(b"\xff" + bytes([0xD0 + RESTARTS - 1]))  # the last of a count, as blocks are whole
            else:
                head = data[: frame + 5] + struct.pack(">H", self._height) + data[frame + 7 : scan]
                self._parts.append(self._begin(head))
            self._parts.append(data[scan : -len(END_OF_IMAGE)])


def _places(data: bytes) -> tuple[int, int]:
    """Where the frame header of a JPEG begins, and where its coded pixels do."""
    at, frame = 2, 0  # behind the start marker
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        frame = at if marker in START_OF_FRAME else frame
        at += 2 + length
        if marker == START_OF_SCAN:
            return frame, at
