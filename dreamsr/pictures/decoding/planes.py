"""TIFF files as they come: which of their many kinds are read, which page is the picture, planes woven together.

Pillow chooses how to take samples apart by a table of kinds. Some of its choices are wrong (signed samples, planes of
more than 8 bits, grey with alpha in planes), so what is not known to be right is refused here, by name.
Source: TIFF 6.0 (1992), sections 3 to 8, 16, 18, 19 and 22; Adobe Photoshop TIFF notes (2002) for the subfile types.
"""

import io
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from dreamsr.errors import ImageError
from dreamsr.pictures.decoding.damage import damage_in, load_tiff
from dreamsr.pictures.picture import Array
from dreamsr.pictures.tiff import (
    BITS,
    COMPRESSION,
    DNG_VERSION,
    EXTRA_SAMPLES,
    HEIGHT,
    JPEG_TABLES,
    LONG,
    LONG8,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    SHORT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    SUBFILE_TYPE,
    TILE_BYTES,
    TILE_OFFSETS,
    WIDTH,
    Entry,
    Layout,
    Node,
    layout_tags,
    number,
    numbers,
    read_directory,
    read_header,
    values_of,
    write_directory,
    write_header,
)

FILL_ORDER, TILE_WIDTH, TILE_HEIGHT = 266, 322, 323
WHITE_IS_ZERO, GREY, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
COLOURS = {WHITE_IS_ZERO: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}  # channels, less extra ones
PHOTOMETRIC_NAMES = {
    MASK: "a transparency mask", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
    32803: "a sensor's colour mosaic", 34892: "linear raw colours", 32844: "LogL", 32845: "LogLuv colours",
}  # fmt: skip
SAMPLE_NAMES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
REDUCED = 1  # bit 0 of NewSubfileType
OLD_SUBFILE_TYPE, OLD_REDUCED = 255, 2
MAX_PAGES = 64  # smaller versions of one picture are far fewer

# What says how strips and tiles are decoded: sizes, compression with its options and tables, order of bits.
DECODING_TAGS = frozenset(
    {WIDTH, HEIGHT, COMPRESSION, FILL_ORDER, ROWS_PER_STRIP, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, JPEG_TABLES}
)
PIXEL_TAGS = DECODING_TAGS | {
    TILE_OFFSETS,
    TILE_BYTES,
    SAMPLE_FORMAT,
    STRIP_OFFSETS,
    STRIP_BYTES,
    BITS,
    PHOTOMETRIC,
    SAMPLES,
    PLANAR,
    EXTRA_SAMPLES,
}


# --- kinds ------------------------------------------------------------------------------------------------------------


def refuse_kind(tags: Mapping[int, Any], name: str) -> None:
    """Raises ImageError where the layout that `tags` (Pillow's) state is not known to be read right."""
    what = _unread(tags)
    if what:
        raise ImageError(f"{name} is a TIFF with {what}, which is not read; save it as 8-bit or 16-bit RGB or grey.")


def _unread(tags: Mapping[int, Any]) -> str:
    """What about the layout is not read, in words; "" where all is."""
    photometric = tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    bits, formats = _each(tags.get(BITS, 1)), _each(tags.get(SAMPLE_FORMAT, 1))
    extra = _each(tags.get(EXTRA_SAMPLES, ()))
    if photometric not in COLOURS:
        return PHOTOMETRIC_NAMES.get(photometric, f"the unknown colour space {photometric}")
    if len(set(formats)) > 1 or len(set(bits)) > 1:
        return f"channels of different kinds ({', '.join(map(str, bits))} bits)"
    depth, format = bits[0], formats[0]
    if format != 1 and not (format == 2 and depth == 32 and photometric == GREY):  # those are judged by their values
        return f"{SAMPLE_NAMES.get(format, 'untyped')} pixels of {depth} bits"
    channels, alphas = COLOURS[photometric], sum(kind in (1, 2) for kind in extra)
    depths = {GREY: (1, 2, 4, 8, 12, 16, 32), WHITE_IS_ZERO: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}
    if depth not in depths.get(photometric, (8, 16) if photometric in (RGB, CMYK) else (8,)):
        return f"{depth} bits in each of {channels} channels" if channels > 1 else f"pixels of {depth} bits"
    if alphas and photometric in (WHITE_IS_ZERO, CMYK, YCBCR, LAB):
        return "transparency beside " + {CMYK: "CMYK", WHITE_IS_ZERO: "inverted grey"}.get(photometric, "its colours")
    if is_planar(tags) and photometric not in (WHITE_IS_ZERO, GREY, RGB, CMYK):
        return "one plane per channel in its kind of colours"
    return ""


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) and value else (value,) if not isinstance(value, tuple) else ()


def refuse_unopened(stream: IO[bytes], name: str) -> None:
    """Raises ImageError, naming the kind, where the directory of a file that Pillow does not open is sound."""
    pages = pages_of(stream)
    tags = pages[0][1] if pages else {}
    if WIDTH not in tags or HEIGHT not in tags or not (STRIP_OFFSETS in tags or TILE_OFFSETS in tags):
        return
    refuse_kind(tags, name)
    if tags.get(COMPRESSION, 1) not in TiffImagePlugin.COMPRESSION_INFO:
        raise ImageError(
            f"{name} is a TIFF with the unknown compression {tags[COMPRESSION]}, which is not read; save it again "
            "with LZW or deflate."
        )
    count, depth = tags.get(SAMPLES, 1), _each(tags.get(BITS, 1))[0]
    raise ImageError(
        f"{name} is a TIFF with {count} channels of {depth} bits in an arrangement that is not read; save it as 8-bit "
        "or 16-bit RGB or grey."
    )


def is_planar(tags: Mapping[int, Any]) -> bool:
    """Whether the channels, several, lie one behind the other."""
    return bool(tags.get(PLANAR, 1) == 2 and tags.get(SAMPLES, 1) != 1)


# --- pages ------------------------------------------------------------------------------------------------------------


def pages_of(stream: IO[bytes]) -> list[tuple[int, Mapping[int, Any]]]:
    """Place and tags of each page, in order; fewer where the chain is broken."""
    stream.seek(0)
    head = stream.read(16)
    header = read_header(head)
    pages: list[tuple[int, Mapping[int, Any]]] = []
    at = header[1] if header else 0
    while 0 < at < 2**63 and at not in (place for place, _ in pages) and len(pages) < MAX_PAGES:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head if header and header[0].big else head[:8])
        stream.seek(at)
        tags.load(stream)
        if not len(tags):
            break
        pages.append((at, tags))
        at = tags.next
    return pages


def main_page(stream: IO[bytes], name: str) -> IO[bytes]:
    """The file with the one page first that is no thumbnail of another. Raises ImageError for several, and for raws."""
    pages = pages_of(stream)
    mains = [at for at, tags in pages if not _is_reduced(tags)]
    if pages and (not mains or any(DNG_VERSION in tags for _, tags in pages)):
        raise ImageError(
            f"{name} seems to be a camera raw file, of which only a preview could be read; develop it first."
        )
    if len(mains) > 1:
        raise ImageError(
            f"{name} has {len(mains)} pages, and only single pictures can be used; split it into pages first."
        )
    stream.seek(0)
    return stream if not pages or mains[0] == pages[0][0] else io.BytesIO(beginning_with(stream.read(), mains[0]))


def _is_reduced(tags: Mapping[int, Any]) -> bool:
    """Whether the page says that it is a thumbnail or a smaller version of another page."""
    subfile = tags.get(SUBFILE_TYPE, 0)
    return (isinstance(subfile, int) and bool(subfile & REDUCED)) or tags.get(OLD_SUBFILE_TYPE) == OLD_REDUCED


def beginning_with(data: bytes, page_at: int) -> bytes:
    """The file with the page at `page_at` as its first."""
    header = read_header(data)
    if header is None or header[1] == page_at:
        return data
    opening = write_header(header[0], page_at)
    return opening + data[len(opening) :]


# --- planes -----------------------------------------------------------------------------------------------------------


def interleaved(data: bytes, name: str) -> bytes:
    """A planar TIFF as one with interleaved channels, uncompressed: what Pillow takes apart rightly.

    Every plane is read as a grey picture of its own, whatever its compression. Extra channels that are no alpha are
    left out. Raises ImageError where the strips or tiles do not add up.
    """
    header = read_header(data)
    if header is None:
        return data
    layout, first = header
    entries = read_directory(data, layout, first)
    kinds = values_of(entries.get(EXTRA_SAMPLES), layout.order)
    photometric = number(entries.get(PHOTOMETRIC), layout.order) or 0
    colours = COLOURS.get(photometric, 0)
    count = colours + (1 if kinds[:1] in ([1], [2]) else 0)
    if not kinds and number(entries.get(SAMPLES), layout.order) == colours + 1:
        count += 1  # an alpha channel that is not declared, as Pillow takes it
    planes = [_plane(data, layout, entries, index, name) for index in range(count)]
    samples = np.stack(planes, axis=2)  # [H,W,C]
    samples = samples.astype(samples.dtype.newbyteorder(layout.order), copy=False)
    kept = {tag: entry for tag, entry in entries.items() if tag not in PIXEL_TAGS}
    own = layout_tags(samples.shape, samples.itemsize * 8, photometric, layout.order)
    if count > colours:
        own[EXTRA_SAMPLES] = numbers(SHORT, kinds[:1] or [2], layout.order)
    body = samples.tobytes()
    at = len(data) + len(data) % 2
    long_type = LONG8 if layout.big else LONG
    own[STRIP_OFFSETS], own[STRIP_BYTES] = (numbers(long_type, [value], layout.order) for value in (at, len(body)))
    body += bytes(len(body) % 2)
    end = at + len(body)
    return beginning_with(data, end).ljust(at, b"\0") + body + write_directory({**kept, **own}, layout, end)


def _plane(data: bytes, layout: Layout, entries: Mapping[int, Entry], index: int, name: str) -> Array:
    """Channel `index` as it is stored, uint8 or uint16 [H,W]."""
    order = layout.order
    height, samples = (number(entries.get(tag), order) or 0 for tag in (HEIGHT, SAMPLES))
    places = (TILE_OFFSETS, TILE_BYTES) if TILE_OFFSETS in entries else (STRIP_OFFSETS, STRIP_BYTES)
    parts = {tag: values_of(entries.get(tag), order) for tag in places}
    each = len(parts[places[0]]) // max(samples, 1)
    rows = number(entries.get(ROWS_PER_STRIP), order) or height
    expected = -(-height // rows) if places[0] == STRIP_OFFSETS else each
    if each == 0 or each != expected or any(len(values) != each * samples for values in parts.values()):
        raise ImageError(
            f"{name} is a TIFF of {samples} channels with one plane each, and its {len(parts[places[0]])} strips do "
            "not make that many; get a whole copy, or save it with interleaved channels."
        )
    tags: dict[int, Node] = {tag: entry for tag, entry in entries.items() if tag in DECODING_TAGS}
    tags[SAMPLES], tags[PLANAR], tags[PHOTOMETRIC] = (numbers(SHORT, [1], order) for _ in range(3))
    tags[BITS] = numbers(SHORT, values_of(entries.get(BITS), order)[:1], order)
    for tag, values in parts.items():
        tags[tag] = numbers(LONG8 if layout.big else LONG, values[index * each : (index + 1) * each], order)
    at = len(data) + len(data) % 2
    grey = beginning_with(data, at).ljust(at, b"\0") + write_directory(tags, layout, at)
    with Image.open(io.BytesIO(grey), formats=["TIFF"]) as image:
        if damage := load_tiff(image, name) or damage_in(grey, "TIFF"):
            raise ImageError(f"{name} is damaged ({damage}); get a whole copy of it.")
        plane = np.asarray(image)
    return plane.astype(np.uint16) if plane.dtype.itemsize == 2 else plane  # in this machine's order
