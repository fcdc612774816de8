"""What AVIF and HEIC files say of their main picture beside its pixels: the properties of the primary item.

Source: ISO/IEC 14496-12 (boxes), 23008-12 sections 6 and 9 (items, properties, derived pictures); AV1-ISOBMFF 2.3.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

STREAM_BYTES = 256  # where the headers of a coded picture stand


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


def properties_of_main(data: bytes) -> list[Box]:
    """The properties of the main picture, then those of the tiles that make it up; [] where there are none."""
    try:
        meta = _all(_first(data, b"meta")[4:])
        found = {box.kind: box.content for box in reversed(meta)}
        main = _number(found[b"pitm"][4:], wide=found[b"pitm"][0] > 0)
        parts = _all(found[b"iprp"])
        pool = _all(next(box.content for box in parts if box.kind == b"ipco"))
        owned = _owned([box.content for box in parts if box.kind == b"ipma"])
        items = [main, *_tiles(found.get(b"iref"), main)]
        return [pool[index - 1] for item in items for index in owned.get(item, ()) if 0 < index <= len(pool)]
    except (KeyError, StopIteration, IndexError, struct.error):
        return []


def stream_of_main(data: bytes) -> bytes:
    """The first bytes of the coded main picture, or of its first tile; b"" where they are not found."""
    try:
        found = {box.kind: box.content for box in reversed(_all(_first(data, b"meta")[4:]))}
        main = _number(found[b"pitm"][4:], wide=found[b"pitm"][0] > 0)
        item = next(iter(_tiles(found.get(b"iref"), main)), main)
        at = _places(found[b"iloc"]).get(item)
        return b"" if at is None else data[at : at + STREAM_BYTES]
    except (KeyError, StopIteration, IndexError, struct.error):
        return b""


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


def _places(table: bytes) -> dict[int, int]:
    """Item -> where in the file its first bytes stand, for items that stand in the file itself."""
    version, sizes = table[0], struct.unpack_from(">H", table, 4)[0]
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    wide = version == 2
    count = _number(table[6:], wide=wide)
    at = 10 if wide else 8
    places: dict[int, int] = {}
    for _ in range(min(count, len(table))):
        item = _number(table[at:], wide=wide)
        at += 4 if wide else 2
        method = struct.unpack_from(">H", table, at)[0] & 15 if version else 0
        at += (2 if version else 0) + 2  # the number of the file, 0 for this one
        base = int.from_bytes(table[at : at + base_bytes], "big")
        at += base_bytes
        (extents,) = struct.unpack_from(">H", table, at)
        at += 2 + index_bytes
        if method == 0 and extents:
            places[item] = base + int.from_bytes(table[at : at + offset_bytes], "big")
        at += extents * (offset_bytes + length_bytes) + max(0, extents - 1) * index_bytes
    return places


def _tiles(references: bytes | None, item: int) -> list[int]:
    """The items that `item` is put together from."""
    if references is None:
        return []
    wide = references[0] > 0
    step = 4 if wide else 2
    for kind, content in _boxes(references[4:]):
        if kind == b"dimg" and _number(content, wide=wide) == item:
            (count,) = struct.unpack_from(">H", content, step)
            return [_number(content[step + 2 + i * step :], wide=wide) for i in range(min(count, 256 * 256))]
    return []
