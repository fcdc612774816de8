"""What AVIF and HEIC files say of their main picture beside its pixels: the properties of the primary item.

Source: ISO/IEC 14496-12 (boxes), 23008-12 sections 6 and 9 (items, properties, derived pictures); AV1-ISOBMFF 2.3.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

STREAM_BYTES = 256  # where the headers of a coded picture stand
ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
BROKEN = (KeyError, StopIteration, IndexError, struct.error)


class Box(NamedTuple):
    """One box: its four letters and its content."""

    kind: bytes
    content: bytes


class Nclx(NamedTuple):
    """Code points of ITU-T H.273, as `colr` boxes and PNG's cICP chunk give them."""

    primaries: int
    transfer: int
    matrix: int
    full_range: bool


class Coded(NamedTuple):
    """A coded picture: its stream, and the properties of the item that holds it."""

    stream: bytes
    properties: list[Box]


def properties_of_main(data: bytes) -> list[Box]:
    """The properties of the main picture, then those of the tiles that make it up; [] where there are none."""
    try:
        items = _Items(data)
        return [box for item in (items.main, *items.tiles_of(items.main)) for box in items.properties_of(item)]
    except BROKEN:
        return []


def stream_of_main(data: bytes) -> bytes:
    """The first bytes of the coded main picture, or of its first tile; b"" where they are not found."""
    return next((picture.stream[:STREAM_BYTES] for picture in coded_main(data)), b"")


def coded_main(data: bytes) -> list[Coded]:
    """The coded pictures that make up the main one and its alpha: each alone, or its tiles.

    Fewer where the streams, overlapping, would come to more than the file; [] where there are none.
    """
    found: list[Coded] = []
    try:
        items = _Items(data)
        whole = [items.main, *items.alphas_of(items.main)]
        left_bytes = len(data)
        for part in dict.fromkeys(part for item in whole for part in items.tiles_of(item) or [item]):
            stream = b"".join(items.extents_of(part))
            left_bytes -= len(stream)
            if left_bytes < 0:
                break
            found.append(Coded(stream, items.properties_of(part)))
    except BROKEN:
        return []
    return found


def nclx_of(properties: list[Box]) -> Nclx | None:
    """The first colour description by code points."""
    for kind, content in properties:
        if kind == b"colr" and content[:4] in (b"nclx", b"nclc") and len(content) >= 10:
            primaries, transfer, matrix = struct.unpack_from(">3H", content, 4)
            return Nclx(primaries, transfer, matrix, len(content) > 10 and content[10] >= 128)
    return None


def bits_of(properties: list[Box]) -> int:
    """Bits per channel, 8 where nothing is said."""
    for kind, content in properties:
        if kind == b"pixi" and len(content) > 5:
            return max(content[5 : 5 + content[4]], default=8)
        if kind == b"av1C" and len(content) > 2 and content[2] & 0x40:
            return 12 if content[2] & 0x20 else 10
    return 8


class _Items:
    """The items of a file, as its meta box lists them. Raises one of BROKEN where that is broken."""

    def __init__(self, data: bytes) -> None:
        found = {box.kind: box.content for box in reversed(_all(_first(data, b"meta")[4:]))}
        parts = _all(found[b"iprp"])
        self._data = data
        self._idat = found.get(b"idat", b"")
        self._pool = _all(next(box.content for box in parts if box.kind == b"ipco"))
        self._owned = _owned([box.content for box in parts if box.kind == b"ipma"])
        self._extents = _extents(found[b"iloc"]) if b"iloc" in found else {}
        self._references = _references(found.get(b"iref"))
        self.main = _number(found[b"pitm"][4:], wide=found[b"pitm"][0] > 0)

    def properties_of(self, item: int) -> list[Box]:
        return [self._pool[index - 1] for index in self._owned.get(item, ()) if 0 < index <= len(self._pool)]

    def tiles_of(self, item: int) -> list[int]:
        """The items that `item` is put together from."""
        return next((ends for kind, of, ends in self._references if (kind, of) == (b"dimg", item)), [])

    def alphas_of(self, item: int) -> list[int]:
        """The items that say how opaque `item` is."""
        beside = [of for kind, of, ends in self._references if kind == b"auxl" and item in ends]
        says = {one: [box.content[4:] for box in self.properties_of(one) if box.kind == b"auxC"] for one in beside}
        return [one for one, kinds in says.items() if any(kind.startswith(ALPHA) for kind in kinds)]

    def extents_of(self, item: int) -> list[bytes]:
        """The parts of the stream of `item`."""
        method, places = self._extents.get(item, (0, []))
        source = {0: self._data, 1: self._idat}.get(method, b"")
        return [source[start : start + length if length else None] for start, length in places]


def _boxes(data: bytes) -> Iterator[Box]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">L4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        size = size or len(data) - at  # 0: to the end
        if size < head:
            return
        yield Box(kind, data[at + head : at + size])
        at += size


def _all(data: bytes) -> list[Box]:
    return list(_boxes(data))


def _first(data: bytes, kind: bytes) -> bytes:
    return next(box.content for box in _boxes(data) if box.kind == kind)


def _number(data: bytes, *, wide: bool) -> int:
    return int.from_bytes(data[: 4 if wide else 2], "big")


def _owned(tables: list[bytes]) -> dict[int, list[int]]:
    """Item -> the places of its properties in the pool, counted from 1."""
    owned: dict[int, list[int]] = {}
    for table in tables:
        wide_items, wide_places = table[0] > 0, bool(table[3] & 1)
        (count,) = struct.unpack_from(">L", table, 4)
        at, step = 8, 2 if wide_places else 1
        for _ in range(min(count, len(table))):
            item = _number(table[at:], wide=wide_items)
            at += 4 if wide_items else 2
            places = table[at + 1 : at + 1 + table[at] * step]
            at += 1 + table[at] * step
            mask = 0x7FFF if wide_places else 0x7F  # the highest bit says "essential"
            values = [int.from_bytes(places[i : i + step], "big") & mask for i in range(0, len(places), step)]
            owned.setdefault(item, []).extend(values)
    return owned


def _extents(table: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Item -> how it is stored (0: in the file, 1: in the box idat) and where its parts stand, each with its length."""
    version, sizes = table[0], struct.unpack_from(">H", table, 4)[0]
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    each = index_bytes + offset_bytes + length_bytes
    wide = version == 2
    at = 6

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(table):
            raise IndexError
        return int.from_bytes(table[at - count : at], "big")

    found: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    for _ in range(take(4 if wide else 2)):
        item = take(4 if wide else 2)
        method = take(2) & 15 if version else 0
        take(2)  # the number of the file, 0 for this one
        base, count = take(base_bytes), take(2)
        places = []
        for _ in range(count if each else 1):
            take(index_bytes)
            start = base + take(offset_bytes)
            places.append((start, take(length_bytes)))
        found[item] = method, places
    return found


def _references(table: bytes | None) -> list[tuple[bytes, int, list[int]]]:
    """What the items have to do with each other: the kind, from which item, to which."""
    if table is None:
        return []
    wide = table[0] > 0
    step = 4 if wide else 2
    found = []
    for kind, content in _boxes(table[4:]):
        (count,) = struct.unpack_from(">H", content, step)
        ends = [_number(content[step + 2 + i * step :], wide=wide) for i in range(count)]
        found.append((kind, _number(content, wide=wide), ends))
    return found
