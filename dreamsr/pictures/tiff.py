"""TIFF directories, raw: the frame of TIFF files and of EXIF blocks alike.

Values stay the bytes they are in the file, so names with accents and private tags survive a round trip untouched.
Source: TIFF 6.0 (1992), sections 2, 8, 14 and 18; the BigTIFF design note (2007).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

ByteOrder = Literal["<", ">"]

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
ORIENTATION, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 274, 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
EXTRA_SAMPLES, SAMPLE_FORMAT, XMP, ICC, DNG_VERSION = 338, 339, 700, 34675, 50706
TILE_OFFSETS, TILE_BYTES, JPEG_TABLES = 324, 325, 347
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
NESTED = (EXIF_IFD, GPS_IFD, INTEROP_IFD)

# The tags of a TIFF file that speak of the photograph; all others speak of how its bytes are laid out.
DESCRIPTIVE = frozenset(
    {270, 271, 272, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, 305, 306, 315, 316, 18246, 18249, 33432}
    | {EXIF_IFD, GPS_IFD, 40091, 40092, 40093, 40094, 40095}
)


class Entry(NamedTuple):
    """One tag: its type, its value as stored, and where in the data the entry and the value begin."""

    type: int
    value: bytes
    entry_at: int = 0
    value_at: int = 0


Node = Entry | Mapping[int, "Node"]


@dataclass(frozen=True)
class Layout:
    """How numbers are stored: byte order, and classic (32-bit offsets) or big (64-bit offsets)."""

    order: ByteOrder
    big: bool = False

    @property
    def count_format(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def entry_format(self) -> str:
        return self.order + ("HHQ8s" if self.big else "HHL4s")

    @property
    def offset_format(self) -> str:
        return self.order + ("Q" if self.big else "L")

    @property
    def inline_bytes(self) -> int:
        return 8 if self.big else 4


def read_header(data: bytes) -> tuple[Layout, int] | None:
    """The layout and the place of the first directory; None where `data` does not begin like a TIFF."""
    order: ByteOrder
    if data[:2] == b"II":
        order = "<"
    elif data[:2] == b"MM":
        order = ">"
    else:
        return None
    if len(data) >= 8 and data[2:4] == struct.pack(order + "H", 42):
        return Layout(order), struct.unpack_from(order + "L", data, 4)[0]
    if len(data) >= 16 and data[2:4] == struct.pack(order + "H", 43):
        return Layout(order, big=True), struct.unpack_from(order + "Q", data, 8)[0]
    return None


def read_directory(data: bytes, layout: Layout, at: int) -> dict[int, Entry]:
    """The sound entries of the directory at `at`; entries that point outside the data are left out."""
    count_bytes = struct.calcsize(layout.count_format)
    entry_bytes = struct.calcsize(layout.entry_format)
    if at <= 0 or at + count_bytes > len(data):
        return {}
    (count,) = struct.unpack_from(layout.count_format, data, at)
    entries: dict[int, Entry] = {}
    left_bytes = len(data)  # overlapping values must not add up to more than the data holds
    for entry_at in range(at + count_bytes, at + count_bytes + min(count, 4096) * entry_bytes, entry_bytes):
        if entry_at + entry_bytes > len(data):
            break
        tag, kind, items, inline = struct.unpack_from(layout.entry_format, data, entry_at)
        value_bytes = TYPE_BYTES.get(kind, 0) * items
        value_at = entry_at + entry_bytes - layout.inline_bytes
        if value_bytes > layout.inline_bytes:
            (value_at,) = struct.unpack(layout.offset_format, inline)
        left_bytes -= value_bytes
        if value_bytes == 0 or left_bytes < 0 or value_at + value_bytes > len(data):
            continue
        entries.setdefault(tag, Entry(kind, data[value_at : value_at + value_bytes], entry_at, value_at))
    return entries


def number(entry: Entry | None, order: ByteOrder) -> int | None:
    """The first value of an integer entry; None for anything else."""
    code = {BYTE: "B", SHORT: "H", LONG: "L", 13: "L", LONG8: "Q", 18: "Q"}.get(entry.type) if entry else None
    if entry is None or code is None:
        return None
    return int(struct.unpack_from(order + code, entry.value)[0])


def values_of(entry: Entry | None, order: ByteOrder) -> list[int]:
    """All values of an integer entry; [] for anything else."""
    code = {SHORT: "u2", LONG: "u4", LONG8: "u8"}.get(entry.type) if entry else None
    return [] if entry is None or code is None else np.frombuffer(entry.value, order + code).tolist()


def strips_of(data: bytes, entries: Mapping[int, Entry], order: ByteOrder) -> Iterator[bytes]:
    """The strips or tiles of a page as they are coded, as many as add up to no more than the data."""
    places = (TILE_OFFSETS, TILE_BYTES) if TILE_OFFSETS in entries else (STRIP_OFFSETS, STRIP_BYTES)
    left_bytes = len(data)
    for start, length in zip(*(values_of(entries.get(tag), order) for tag in places), strict=False):
        left_bytes -= length
        if left_bytes < 0:
            return
        yield data[start : start + length]


def read_tree(data: bytes, layout: Layout, at: int) -> dict[int, Node]:
    """The directory at `at` with its EXIF, GPS and interoperability directories read in place of their offsets."""
    tree: dict[int, Node] = {}
    for tag, entry in read_directory(data, layout, at).items():
        if tag not in NESTED:
            tree[tag] = entry
            continue
        nested: dict[int, Node] = dict(read_directory(data, layout, number(entry, layout.order) or 0))
        below = nested.pop(INTEROP_IFD, None)
        if isinstance(below, Entry):
            last: dict[int, Node] = dict(read_directory(data, layout, number(below, layout.order) or 0))
            if last:
                nested[INTEROP_IFD] = last
        if nested:
            tree[tag] = nested
    return tree


def write_directory(tree: Mapping[int, Node], layout: Layout, at: int) -> bytes:
    """The bytes of a directory, its values and its nested directories, to be put at the even place `at`."""
    entries_bytes = len(tree) * struct.calcsize(layout.entry_format)
    head = struct.pack(layout.count_format, len(tree))
    tail_at = at + len(head) + entries_bytes + layout.inline_bytes
    tail_at += tail_at % 2
    tail = bytearray()
    for tag, node in sorted(tree.items(), key=lambda item: item[0]):
        if isinstance(node, Entry):
            kind, value, items = node.type, node.value, len(node.value) // TYPE_BYTES[node.type]
        else:
            kind, items = (LONG8 if layout.big else LONG), 1
            value = struct.pack(layout.offset_format, tail_at + len(tail))
            tail += write_directory(node, layout, tail_at + len(tail))
        if len(value) > layout.inline_bytes:
            inline = struct.pack(layout.offset_format, tail_at + len(tail))
            tail += value
        else:
            inline = value
        tail += b"\0" * (len(tail) % 2)
        head += struct.pack(layout.entry_format, tag, kind, items, inline)
    head += struct.pack(layout.offset_format, 0)  # no further directory
    return head + b"\0" * (len(head) % 2) + bytes(tail)


def write_header(layout: Layout, first_directory_at: int) -> bytes:
    """The 8 bytes (16 in the big layout) that open a TIFF structure."""
    mark = b"II" if layout.order == "<" else b"MM"
    if layout.big:
        return mark + struct.pack(layout.order + "HHHQ", 43, 8, 0, first_directory_at)
    return mark + struct.pack(layout.order + "HL", 42, first_directory_at)


def layout_tags(shape: tuple[int, int, int], bits: int, photometric: int, order: ByteOrder) -> dict[int, Node]:
    """What a page must say of its samples [H,W,C] of so many bits, uncompressed in one strip."""
    height, width, channels = shape
    return {
        WIDTH: numbers(LONG, [width], order),
        HEIGHT: numbers(LONG, [height], order),
        BITS: numbers(SHORT, [bits] * channels, order),
        COMPRESSION: numbers(SHORT, [1], order),
        PHOTOMETRIC: numbers(SHORT, [photometric], order),
        SAMPLES: numbers(SHORT, [channels], order),
        ROWS_PER_STRIP: numbers(LONG, [height], order),
        PLANAR: numbers(SHORT, [1], order),
    }


def numbers(kind: int, values: Sequence[int], order: ByteOrder) -> Entry:
    """An entry of the values; of a RATIONAL, numerators and denominators by turns."""
    code = {SHORT: "u2", LONG: "u4", RATIONAL: "u4", LONG8: "u8"}[kind]
    return Entry(kind, np.array(values, dtype=order + code).tobytes())
