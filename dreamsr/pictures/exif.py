"""EXIF blocks: which way is up, and the few values that an enlarged picture must correct.

Blocks are corrected in place rather than written anew, since makers' notes hold offsets that a move would break.
Source: CIPA DC-008 (Exif 3.0), sections 4.5 and 4.6.
"""

import struct
from collections.abc import Mapping

from dreamsr.pictures.tiff import (
    DESCRIPTIVE,
    EXIF_IFD,
    HEIGHT,
    INTEROP_IFD,
    LONG,
    ORIENTATION,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    ByteOrder,
    Entry,
    Layout,
    Node,
    number,
    read_directory,
    read_header,
    read_tree,
    write_directory,
    write_header,
)

PREFIX = b"Exif\0\0"
RELATED_WIDTH, RELATED_HEIGHT = 4097, 4098  # of the picture that an interoperability directory is about
PIXEL_X, PIXEL_Y, THUMBNAIL_AT, THUMBNAIL_BYTES = 40962, 40963, 513, 514
COLOUR_SPACE, INTEROP_INDEX = 40961, 1
SRGB, ADOBE_RGB, UNCALIBRATED = 1, 2, 0xFFFF


def orientation_of(exif: bytes | None) -> int:
    """1 to 8; 1 where the block says nothing sound."""
    layout, first, block = _opened(exif)
    if layout is None:
        return 1
    turn = number(read_directory(block, layout, first).get(ORIENTATION), layout.order)
    return turn if turn is not None and 1 <= turn <= 8 else 1


def kept_exif(exif: bytes | None) -> bytes | None:
    """The block with Orientation 1 and without its thumbnail; None where there is none or it is damaged."""
    layout, first, block = _opened(exif)
    if layout is None or layout.big:
        return None
    entries = read_directory(block, layout, first)
    if not entries:
        return None
    patched = bytearray(block)
    if ORIENTATION in entries:
        _overwrite(patched, layout.order, entries[ORIENTATION], SHORT, 1)
    return PREFIX + _without_thumbnail(patched, layout, first)


def exif_for_size(exif: bytes, width: int, height: int) -> bytes:
    """The block with every size it states, in px, set to `width` x `height`."""
    layout, first, block = _opened(exif)
    if layout is None:
        return exif
    patched = bytearray(block)
    entries = read_directory(block, layout, first)
    _, _, inner, interop = _inner_entries(exif)
    for found, tag, size in (
        (entries, WIDTH, width),
        (entries, HEIGHT, height),
        (inner, PIXEL_X, width),
        (inner, PIXEL_Y, height),
        (interop, RELATED_WIDTH, width),
        (interop, RELATED_HEIGHT, height),
    ):
        if tag in found:
            _overwrite(patched, layout.order, found[tag], LONG, size)
    return PREFIX + bytes(patched)


def is_adobe_rgb(exif: bytes | None) -> bool:
    """Whether the block says Adobe RGB, by the colour space 2 or by cameras' R03 with an uncalibrated one."""
    layout, _, inner, interop = _inner_entries(exif)
    if layout is None:
        return False
    space = number(inner.get(COLOUR_SPACE), layout.order)
    index = interop.get(INTEROP_INDEX)
    return space == ADOBE_RGB or (space == UNCALIBRATED and index is not None and index.value[:3] == b"R03")


def exif_as_srgb(exif: bytes) -> bytes:
    """The block, which says sRGB wherever it said another colour space."""
    layout, block, inner, interop = _inner_entries(exif)
    if layout is None:
        return exif
    patched = bytearray(block)
    if COLOUR_SPACE in inner:
        _overwrite(patched, layout.order, inner[COLOUR_SPACE], SHORT, SRGB)
    index = interop.get(INTEROP_INDEX)
    if index is not None and index.value[:3] == b"R03":
        patched[index.value_at : index.value_at + 3] = b"R98"
    return PREFIX + bytes(patched)


def _inner_entries(exif: bytes | None) -> tuple[Layout | None, bytes, Mapping[int, Entry], Mapping[int, Entry]]:
    """Layout, block, and the entries of its EXIF and interoperability directories."""
    layout, first, block = _opened(exif)
    if layout is None:
        return None, block, {}, {}
    below = [read_directory(block, layout, first)]
    for tag in (EXIF_IFD, INTEROP_IFD):
        below.append(read_directory(block, layout, number(below[-1].get(tag), layout.order) or 0))
    return layout, block, below[1], below[2]


def density_of_exif(exif: bytes | None) -> tuple[float, float, int] | None:
    """Horizontal and vertical resolution and their unit (2 inch, 3 centimetre); None where the block states none."""
    layout, first, block = _opened(exif)
    if layout is None:
        return None
    entries = read_directory(block, layout, first)
    values = [_ratio(entries.get(tag), layout.order) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    unit = number(entries.get(RESOLUTION_UNIT), layout.order)
    return None if 0 in values else (values[0], values[1], 2 if unit is None else unit)


def exif_with_density(exif: bytes, entries: Mapping[int, Entry], order: ByteOrder) -> bytes:
    """The block with the resolution of `entries`, in its own byte `order`, wherever it states one."""
    layout, first, block = _opened(exif)
    if layout is None or layout.order != order:
        return exif
    patched = bytearray(block)
    for tag, entry in read_directory(block, layout, first).items():
        new = entries.get(tag)
        if new is not None and (new.type, len(new.value)) == (entry.type, len(entry.value)):
            patched[entry.value_at : entry.value_at + len(new.value)] = new.value
    return PREFIX + bytes(patched)


def exif_order(exif: bytes) -> ByteOrder:
    """The byte order of the block."""
    layout, _, _ = _opened(exif)
    return layout.order if layout else "<"


def exif_of(entries: Mapping[int, Entry]) -> bytes:
    """A block of those entries, whose values are little-endian."""
    return PREFIX + write_header(Layout("<"), 8) + write_directory(entries, Layout("<"), 8)


def _ratio(entry: Entry | None, order: ByteOrder) -> float:
    """The first value of a RATIONAL entry; 0 for anything else."""
    if entry is None or entry.type != RATIONAL:
        return 0
    above, below = struct.unpack_from(order + "LL", entry.value)
    return float(above / below) if below else 0


def without_orientation(exif: bytes) -> bytes:
    """The block without an Orientation entry, for containers that state the orientation themselves."""
    layout, first, block = _opened(exif)
    if layout is None:
        return exif
    entry = read_directory(block, layout, first).get(ORIENTATION)
    if entry is None:
        return exif
    (count,) = struct.unpack_from(layout.order + "H", block, first)
    end = first + 2 + count * 12 + 4
    patched = bytearray(block)
    struct.pack_into(layout.order + "H", patched, first, count - 1)
    # The entries behind it move up; the 12 bytes freed at the end are pointed at by nothing.
    patched[entry.entry_at : end] = block[entry.entry_at + 12 : end] + bytes(12)
    return PREFIX + bytes(patched)


def exif_from_tiff(data: bytes) -> bytes | None:
    """What the first directory of a TIFF file says of the photograph, as an EXIF block of its own."""
    layout, first, block = _opened(data)
    if layout is None:
        return None
    tree: dict[int, Node] = {
        tag: node for tag, node in read_tree(block, layout, first).items() if tag in DESCRIPTIVE and _is_classic(node)
    }
    if tree.keys() <= {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}:
        return None  # every TIFF has these
    small = Layout(layout.order)
    return PREFIX + write_header(small, 8) + write_directory(tree, small, 8)


def tiff_tags(exif: bytes | None) -> tuple[ByteOrder, Mapping[int, Node]]:
    """The entries of the block for a TIFF file's own directory, and the byte order of their values."""
    layout, first, block = _opened(exif)
    if layout is None:
        return "<", {}
    return layout.order, {tag: node for tag, node in read_tree(block, layout, first).items() if tag in DESCRIPTIVE}


def _opened(exif: bytes | None) -> tuple[Layout | None, int, bytes]:
    block = exif or b""
    while block.startswith(PREFIX):  # some writers put it twice
        block = block[len(PREFIX) :]
    header = read_header(block)
    return (header[0], header[1], block) if header else (None, 0, block)


def _is_classic(node: Node) -> bool:
    if isinstance(node, Entry):
        return node.type < 16  # the 64-bit types exist in BigTIFF only
    return all(_is_classic(inner) for inner in node.values())


def _overwrite(block: bytearray, order: ByteOrder, entry: Entry, kind: int, value: int) -> None:
    code = "HLHH" if kind == SHORT else "HLL"
    values = (kind, 1, value, 0) if kind == SHORT else (kind, 1, value)
    struct.pack_into(order + code, block, entry.entry_at + 2, *values)


def _without_thumbnail(block: bytearray, layout: Layout, first: int) -> bytes:
    (count,) = struct.unpack_from(layout.order + "H", block, first)
    link_at = first + 2 + count * 12
    if link_at + 4 > len(block):
        return bytes(block)
    (second,) = struct.unpack_from(layout.order + "L", block, link_at)
    thumbnail = read_directory(bytes(block), layout, second)
    struct.pack_into(layout.order + "L", block, link_at, 0)
    at = number(thumbnail.get(THUMBNAIL_AT), layout.order) or 0
    length = number(thumbnail.get(THUMBNAIL_BYTES), layout.order) or 0
    if at <= link_at or length == 0 or at + length > len(block):
        return bytes(block)
    if at + length >= len(block) - 1:
        return bytes(block[:at])
    block[at : at + length] = bytes(length)
    return bytes(block)
