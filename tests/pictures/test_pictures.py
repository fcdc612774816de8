"""Pictures in and out: every mode and format, exactness, metadata, orientation, colour, refusals."""

import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from dreamsr.errors import ImageError, OutputError, UsageError
from dreamsr.pictures.colours.icc import to_srgb
from dreamsr.pictures.picture import FORMATS, Metadata, Picture, format_for, loses_depth
from dreamsr.pictures.read import from_pil, is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.write import encode_picture, to_pil, write_picture

ALL = tuple(FORMATS)
WITH_ALPHA = tuple(name for name in ALL if name not in ("JPEG", "BMP"))
SIZES = [(1, 1), (1, 7), (6, 1), (17, 13), (64, 33)]  # width, height in px


def drawn(width: int = 24, height: int = 16, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    full = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, full + 1, (height, width, channels), dtype=dtype)  # [H,W,C]


def smooth(width: int = 32, height: int = 24) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), 255 - x * 3], -1).astype(np.uint8)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples: np.ndarray, kind: int, *extra: bytes, bits: int = 16) -> bytes:
    """An unfiltered PNG of [H,W,C], colour type `kind`; `extra` chunks go before the data."""
    height, width = samples.shape[:2]
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def display_p3_like() -> bytes:
    """A matrix profile with wider primaries than sRGB, gamma 2.2 curves, as small as a profile can be."""
    colorants = {
        b"rXYZ": (0.6097, 0.3111, 0.0195),
        b"gXYZ": (0.2053, 0.6257, 0.0609),
        b"bXYZ": (0.1492, 0.0632, 0.7446),
    }
    fixed = lambda values: struct.pack(">3i", *(round(value * 65536) for value in values))  # noqa: E731
    tags = {name: b"XYZ \0\0\0\0" + fixed(value) for name, value in colorants.items()}
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + fixed((0.9642, 1.0, 0.8249))}
    tags |= {name: b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(tags, b"RGB ")


def grey_gamma_18() -> bytes:
    return profile(
        {
            b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 461, 0),
            b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        },
        b"GRAY",
    )


def cmyk_all_ink_is_black() -> bytes:
    """A table profile in which no ink is white and any full ink is black."""
    ramp = bytes(range(256))
    corners = b"\xff\x80\x80" + b"\x00\x80\x80" * 15  # L a b at 0000, 0001, ... 1111
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    return profile({b"A2B0": table, b"wtpt": white}, b"CMYK", b"prtr", b"Lab ")


def profile(tags: dict[bytes, bytes], space: bytes, kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description + bytes(-len(description) % 4), b"cprt": b"text\0\0\0\0none", **tags}
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", at + len(body), b"", 0x02400000, kind, space, connection, b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


P3 = display_p3_like()
GREY_18 = grey_gamma_18()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/>Ähre</x:xmpmeta>'.encode()


XMP_UPRIGHT = XMP.replace(b'"6"', b'"1"')  # HEIC's own orientation is all that its readers may see


def exif_block(orientation: int = 1, *, order: str = "<", thumbnail: bool = True) -> bytes:
    """Orientation, an artist in Latin-1, a maker's note, sizes in an EXIF directory, and a thumbnail."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    artist, note, thumb = "José Müller\0".encode("latin-1"), b"NOTE" * 5, b"\xff\xd8thumbnail\xff\xd9"
    exif_at, second_at = 8 + 2 + 4 * 12 + 4, 8 + 2 + 4 * 12 + 4 + 2 + 3 * 12 + 4
    artist_at = second_at + 2 + 2 * 12 + 4
    note_at, thumb_at = artist_at + len(artist), artist_at + len(artist) + len(note)

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        return struct.pack(order + "HHI", tag, kind, count) + packed

    first = entry(256, 3, 1, 5) + entry(274, 3, 1, orientation) + entry(315, 2, len(artist), artist_at)
    first += entry(34665, 4, 1, exif_at)
    inner = entry(37500, 7, len(note), note_at) + entry(40962, 3, 1, 5) + entry(40963, 4, 1, 6)
    second = entry(513, 4, 1, thumb_at) + entry(514, 4, 1, len(thumb))
    block = mark + struct.pack(order + "I", 8)
    block += struct.pack(order + "H", 4) + first + struct.pack(order + "I", second_at if thumbnail else 0)
    block += struct.pack(order + "H", 3) + inner + struct.pack(order + "I", 0)
    block += struct.pack(order + "H", 2) + second + struct.pack(order + "I", 0) + artist + note + thumb
    return b"Exif\0\0" + block


def same(a: Picture, b: Picture) -> None:
    assert a.pixels.dtype == b.pixels.dtype
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None:
        np.testing.assert_array_equal(a.alpha, b.alpha)


# --- exact round trips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_lossless_formats_are_exact(
    format: str, dtype: type, channels: int, alpha: bool, size: tuple[int, int]
) -> None:
    picture = Picture(drawn(*size, channels, dtype), drawn(*size, 1, dtype, seed=1)[..., 0] if alpha else None)
    again = read_picture(encode_picture(picture, format=format))
    assert again.format == format
    if format == "TIFF" and dtype is np.uint16 and channels == 1 and alpha:
        assert again.pixels.shape[2] == 3  # the one kind that is written as RGB
        again = Picture(again.pixels[..., :1], again.alpha)
    same(picture, again)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("format", ["BMP", "WEBP"])
def test_exact_8_bit_formats(format: str, size: tuple[int, int]) -> None:
    picture = Picture(drawn(*size))
    same(picture, read_picture(encode_picture(picture, format=format, quality=100)))


def test_lossless_webp_keeps_colours_under_transparency() -> None:
    picture = Picture(drawn(), np.zeros((16, 24), np.uint8))
    same(picture, read_picture(encode_picture(picture, format="WEBP", quality=100)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("format", ALL)
def test_every_format_and_size(format: str, size: tuple[int, int]) -> None:
    picture = Picture(smooth(*size))
    again = read_picture(encode_picture(picture, format=format))
    assert (again.width, again.height, again.depth_bits) == (*size, 8)
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 6


@pytest.mark.parametrize("format", ALL)
def test_grey_stays_grey_where_it_can(format: str) -> None:
    grey = smooth()[..., :1]
    again = read_picture(encode_picture(Picture(grey), format=format))
    assert again.is_grey == (format != "WEBP")
    assert np.abs(again.pixels.astype(int) - grey).max() < 12


@pytest.mark.parametrize("format", WITH_ALPHA)
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_survives(format: str, channels: int) -> None:
    alpha = np.tile(np.array([0, 255, 128, 7], np.uint8), (8, 4))  # [8,16]
    again = read_picture(encode_picture(Picture(smooth(16, 8)[..., :channels], alpha), format=format))
    assert again.alpha is not None
    assert np.abs(again.alpha.astype(int) - alpha).max() <= (0 if format != "AVIF" else 40)


@pytest.mark.parametrize("format", ["JPEG", "BMP"])
def test_alpha_is_never_lost_in_silence(format: str) -> None:
    opaque = np.full((16, 24), 255, np.uint8)
    read_picture(encode_picture(Picture(drawn(), opaque), format=format))
    opaque[3, 4] = 254
    with pytest.raises(OutputError, match=r"transparency.*PNG, WEBP, TIFF"):
        encode_picture(Picture(drawn(), opaque), format=format)


@pytest.mark.parametrize("format", [name for name in ALL if name not in ("PNG", "TIFF")])
def test_16_bit_is_rounded_to_nearest(format: str) -> None:
    values = np.array([0, 128, 129, 257 * 100 + 128, 257 * 100 + 129, 65535], np.uint16)
    picture = Picture(np.repeat(values, 3).reshape(1, -1, 3))
    assert loses_depth(picture, format)
    assert not loses_depth(picture, "PNG")
    assert not loses_depth(Picture(drawn()), format)
    again = read_picture(encode_picture(picture, format=format, quality=100))
    if format in ("BMP", "WEBP"):
        assert again.pixels[0, :, 0].tolist() == [0, 0, 1, 100, 101, 255]


def test_dark_16_bit_stays_16_bit() -> None:
    dark = Picture(drawn(channels=3, dtype=np.uint16) % 200)
    same(dark, read_picture(encode_picture(dark, format="PNG")))


# --- modes ------------------------------------------------------------------------------------------------------------


def test_1_bit_and_low_bit_grey() -> None:
    bits = drawn(channels=1)[..., 0] > 127
    for format in ("PNG", "TIFF", "BMP"):
        picture = read_picture(saved(Image.fromarray(bits), format))
        np.testing.assert_array_equal(picture.pixels[..., 0], bits * np.uint8(255))
    two = png(np.array([[0b00011011]]), 0, chunk(b"tRNS", b"\0\2"), bits=8).replace(
        struct.pack(">IIBB", 1, 1, 8, 0), struct.pack(">IIBB", 4, 1, 2, 0)
    )
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0))
    picture = read_picture(two[:8] + head + two[8 + len(head) :])
    assert picture.pixels[0, :, 0].tolist() == [0, 85, 170, 255]
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [255, 255, 0, 255]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.fromarray(smooth()).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    for format in ("PNG", "TIFF", "BMP"):
        picture = read_picture(saved(palette, format))
        np.testing.assert_array_equal(picture.pixels, expected)
        assert picture.alpha is None
    for clear, zero in ((3, 3), (bytes([255, 0, 100]), 1)):
        picture = read_picture(saved(palette, "PNG", transparency=clear))
        assert picture.alpha is not None
        np.testing.assert_array_equal(picture.alpha == 0, np.asarray(palette) == zero)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3)])
def test_png_with_one_clear_colour(kind: int, channels: int, dtype: type) -> None:
    samples = drawn(channels=channels, dtype=dtype)
    clear = samples[2, 3]
    data = png(samples, kind, chunk(b"tRNS", clear.astype(">u2").tobytes()), bits=samples.dtype.itemsize * 8)
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels, samples)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, (samples != clear).any(2) * dtype(np.iinfo(dtype).max))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_from_elsewhere(kind: int, channels: int) -> None:
    samples = drawn(channels=channels, dtype=np.uint16)
    picture = read_picture(png(samples, kind))
    colours = channels - (channels % 2 == 0)
    np.testing.assert_array_equal(picture.pixels, samples[..., :colours])
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, samples[..., -1])
    assert probe_picture(png(samples, kind)).depth_bits == 16


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
def test_16_bit_tiff_from_elsewhere(order: str, compressed: bool, extra: int | None) -> None:
    samples = drawn(channels=3 if extra is None else 4, dtype=np.uint16)
    if extra == 1:
        samples[..., :3] = samples[..., :3].astype(np.uint32) * samples[..., 3:] // 65535
    picture = read_picture(tiff(samples, order, compressed, extra))
    assert (picture.alpha is not None) == (extra in (1, 2))
    if extra != 1:
        np.testing.assert_array_equal(picture.pixels, samples[..., :3])
    else:
        again = picture.pixels.astype(np.uint64) * samples[..., 3:] / 65535
        assert np.abs(again - samples[..., :3]).max() <= 1


def tiff(samples: np.ndarray, order: str, compressed: bool = False, extra: int | None = None, **tags: int) -> bytes:
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compressed else data
    entries = [(256, 3, [width]), (257, 3, [height]), (258, 3, [tags.get("bits", bits)] * channels)]
    entries += [(259, 3, [8 if compressed else 1]), (262, 3, [tags.get("photometric", 2 if channels > 2 else 1)])]
    entries += [(273, 4, [8]), (277, 3, [channels]), (278, 3, [height]), (279, 4, [len(data)])]
    entries += [(284, 3, [tags.get("planar", 1)])]
    entries += [] if extra is None else [(338, 3, [extra])]
    entries += [(254, 4, [tags["subfile"]])] if "subfile" in tags else []
    at = 8 + len(data) + len(data) % 2
    tail_at, table, tail = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, values in sorted(entries):
        value = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(value) > 4:
            tail += value
            value = struct.pack(order + "I", tail_at + len(tail) - len(value))
        table += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    data += b"\0" * (len(data) % 2)
    return head + data + struct.pack(order + "H", len(entries)) + table + bytes(4) + tail


def test_tiff_oddities() -> None:
    grey = drawn(channels=1, dtype=np.uint16)
    np.testing.assert_array_equal(read_picture(tiff(grey, ">")).pixels, grey)
    np.testing.assert_array_equal(read_picture(tiff(grey, "<", photometric=0)).pixels, 65535 - grey)
    with pytest.raises(ImageError, match="plane"):
        read_picture(tiff(drawn(dtype=np.uint16), "<", True, planar=2))
    with pytest.raises(ImageError, match="camera raw"):
        read_picture(tiff(drawn(), "<", subfile=1))
    for order in "<>":
        grey8 = drawn(channels=1)
        np.testing.assert_array_equal(read_picture(tiff(grey8, order, True)).pixels, grey8)


def test_modes_of_pillow() -> None:
    rgb = Image.fromarray(smooth())
    red, green, blue = rgb.split()
    rgba = Image.merge("RGBA", (red, green, blue, blue))
    for image, channels, alpha in (
        (rgb.convert("1"), 1, False),
        (red, 1, False),
        (rgba.convert("LA"), 1, True),
        (rgba.convert("LA").convert("La"), 1, True),
        (rgba.convert("RGBa"), 3, True),
        (rgba.convert("RGBX"), 3, False),
        (rgb.convert("CMYK"), 3, False),
        (rgb.convert("YCbCr"), 3, False),
        (rgb.convert("LAB"), 3, False),
        (rgb.convert("HSV"), 3, False),
        (rgb.quantize(9), 3, False),
        (rgba.convert("PA"), 3, True),
    ):
        picture = from_pil(image)
        assert picture.pixels.shape == (24, 32, channels), image.mode
        assert (picture.alpha is not None) == alpha, image.mode
        assert picture.format == ""
        if image.mode in ("YCbCr", "LAB", "RGBX", "CMYK"):
            assert np.abs(picture.pixels.astype(int) - smooth()).mean() < 4, image.mode


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "LA", "PA", "RGBX"])
def test_modes_of_tiff_files(mode: str) -> None:
    rgb = Image.fromarray(smooth())
    source = rgb.convert("RGBA").convert(mode) if mode in ("LA", "PA") else rgb.convert(mode)
    picture = read_picture(saved(source, "TIFF"))
    assert picture.pixels.shape == (24, 32, 1 if mode == "LA" else 3)
    assert (picture.alpha is not None) == (mode in ("LA", "PA"))


def test_32_bit_and_floating_point() -> None:
    values = np.arange(12, dtype=np.int32).reshape(3, 4) * 5000
    np.testing.assert_array_equal(read_picture(saved(Image.fromarray(values), "TIFF")).pixels[..., 0], values)
    for bad in (values - 1, values * 2):
        with pytest.raises(ImageError, match="32-bit pixels"):
            read_picture(saved(Image.fromarray(bad), "TIFF"))
    with pytest.raises(ImageError, match="floating-point"):
        read_picture(saved(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_to_pil_and_back() -> None:
    for channels in (1, 3):
        for alpha in (None, drawn(channels=1)[..., 0]):
            picture = Picture(drawn(channels=channels), alpha)
            same(picture, from_pil(to_pil(picture)))
    grey = Picture(drawn(channels=1, dtype=np.uint16))
    assert to_pil(grey).mode == "I;16"
    same(grey, from_pil(to_pil(grey)))
    deep = Picture(drawn(dtype=np.uint16), metadata=Metadata(P3, exif_block(), XMP))
    assert to_pil(deep).mode == "RGB"
    assert from_pil(to_pil(deep)).metadata == Metadata(P3, read_picture(jpeg(exif_block())).metadata.exif, XMP)


def test_wrong_arrays_are_refused() -> None:
    for pixels in (drawn()[..., 0], drawn(channels=4), drawn().astype(np.float32), drawn()[:0], drawn(channels=2)):
        with pytest.raises(ValueError, match="Picture holds"):
            Picture(pixels)
    for alpha in (drawn(), drawn(channels=1, dtype=np.uint16)[..., 0], drawn(5, 5, 1)[..., 0]):
        with pytest.raises(ValueError, match="alpha is"):
            Picture(drawn(), alpha)


# --- metadata ---------------------------------------------------------------------------------------------------------


def jpeg(exif: bytes = b"", **options: object) -> bytes:
    return saved(Image.fromarray(smooth()), "JPEG", exif=exif, **options)


def with_metadata(dtype: type, exif: bytes) -> Picture:
    pixels = smooth() if dtype is np.uint8 else smooth().astype(np.uint16) * 257
    return Picture(pixels, metadata=Metadata(P3, exif, XMP))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", [name for name in ALL if name != "BMP"])
def test_metadata_survives_every_format(format: str, dtype: type, order: str) -> None:
    picture = with_metadata(dtype, exif_block(order=order, thumbnail=False))
    again = read_picture(encode_picture(picture, format=format)).metadata
    assert (again.icc, again.xmp) == (P3, XMP_UPRIGHT if format == "HEIC" else XMP)
    assert again.exif is not None
    block = Image.Exif()
    block.load(again.exif)
    assert block[315] == "José Müller"
    assert block.get(274, 1) == 1
    inner = block.get_ifd(34665)
    assert (inner[40962], inner[40963]) == (32, 24)
    assert inner[37500] == b"NOTE" * 5


@pytest.mark.parametrize("first", [name for name in ALL if name != "BMP"])
def test_metadata_survives_three_changes_of_format(first: str) -> None:
    picture = with_metadata(np.uint8, exif_block(thumbnail=False))
    for format in (first, "TIFF", "WEBP", "PNG", "TIFF", "JPEG"):
        picture = read_picture(encode_picture(picture, format=format))
    assert (picture.metadata.icc, picture.metadata.xmp) == (P3, XMP_UPRIGHT if first == "HEIC" else XMP)
    assert "José Müller".encode("latin-1") in (picture.metadata.exif or b"")


def test_thumbnail_goes_and_sizes_are_corrected() -> None:
    read = read_picture(jpeg(exif_block()))
    assert read.metadata.exif is not None
    assert b"thumbnail" not in read.metadata.exif
    assert b"NOTE" in read.metadata.exif
    large = Picture(np.zeros((300, 70_000, 1), np.uint8), metadata=read.metadata)
    again = read_picture(encode_picture(large, format="PNG"))
    block = Image.Exif()
    block.load(again.metadata.exif)
    assert (block[256], block.get_ifd(34665)[40962], block.get_ifd(34665)[40963]) == (70_000, 70_000, 300)
    assert not block.get_ifd(0x0201)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(format: str, orientation: int, order: str) -> None:
    upright = smooth(10, 6)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # the viewer turns it right, so it was turned left
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = exif_block(orientation, order=order, thumbnail=False)
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    stored = np.ascontiguousarray(stored)
    if format == "TIFF":
        data = encode_picture(Picture(stored, metadata=Metadata(exif=exif)), format="TIFF")
    else:
        data = saved(Image.fromarray(stored), format, exif=exif, **options)
    picture = read_picture(data)
    np.testing.assert_allclose(picture.pixels.astype(int), upright, atol=8 if format == "JPEG" else 0)
    info = probe_picture(data)
    assert (info.width, info.height, info.format) == (10, 6, format)
    block = Image.Exif()
    block.load(picture.metadata.exif)
    assert block[274] == 1


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow without AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_avif(orientation: int) -> None:
    image = Image.fromarray(smooth(40, 24))
    data = saved(image, "AVIF", quality=100, exif=exif_block(orientation, thumbnail=False))
    picture = read_picture(data)
    assert (picture.width, picture.height) == ((40, 24) if orientation < 5 else (24, 40))
    again = read_picture(encode_picture(picture, format="AVIF", quality=100))
    assert (again.width, again.height) == (picture.width, picture.height)


def test_alpha_and_16_bit_are_turned_too() -> None:
    samples = drawn(7, 5, 4, np.uint16)
    exif = chunk(b"eXIf", exif_block(6)[6:])
    picture = read_picture(png(samples, 6, exif))
    np.testing.assert_array_equal(picture.pixels, np.rot90(samples[..., :3], -1))
    np.testing.assert_array_equal(picture.alpha, np.rot90(samples[..., 3], -1))


def test_xmp_orientation_follows_the_pixels() -> None:
    turned = read_picture(jpeg(exif_block(6), xmp=XMP)).metadata.xmp
    assert turned == XMP.replace(b'="6"', b'="1"')
    assert read_picture(jpeg(exif_block(1), xmp=XMP)).metadata.xmp == XMP


def test_exif_in_the_old_png_text() -> None:
    info = PngImagePlugin.PngInfo()
    block = exif_block(3)
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    data = saved(Image.fromarray(smooth()), "PNG", pnginfo=info)
    np.testing.assert_array_equal(read_picture(data).pixels, smooth()[::-1, ::-1])


def test_damaged_exif_is_dropped() -> None:
    rng = np.random.default_rng(5)
    good = exif_block(6)
    assert read_picture(jpeg(b"Exif\0\0garbage")).metadata.exif is None
    assert read_picture(jpeg(b"Exif\0\0II*\0\xff\xff\xff\xff")).metadata.exif is None
    for _ in range(200):
        block = bytearray(good)
        for at in rng.integers(6, len(good), 5):
            block[at] = rng.integers(256)
        block = block[: rng.integers(8, len(good) + 1)]
        picture = read_picture(jpeg(bytes(block)))
        for format in ALL:
            if format != "AVIF":  # slow, and its metadata takes the same road
                encode_picture(picture, format=format)


def test_metadata_too_long_for_jpeg_is_left_out() -> None:
    long = Metadata(P3, exif_block(thumbnail=False) + bytes(70_000), b"<x>" + b" " * 70_000)
    assert read_picture(encode_picture(Picture(smooth(), metadata=long), format="JPEG")).metadata == Metadata(P3)
    again = read_picture(encode_picture(Picture(smooth(), metadata=long), format="PNG")).metadata
    assert again.xmp == long.xmp


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", ALL)
def test_strip_leaves_nothing(format: str, dtype: type) -> None:
    data = encode_picture(with_metadata(dtype, exif_block()), format=format, strip=True)
    assert read_picture(data).metadata == Metadata()
    for trace in (b"NOTE", b"xmpmeta", b"acsp"):
        assert trace not in data


# --- colour -----------------------------------------------------------------------------------------------------------


def through_profiles(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    result = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(result)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_are_converted_where_the_profile_cannot_stay(dtype: type) -> None:
    picture = with_metadata(dtype, exif_block())
    expected = through_profiles(smooth(), P3).astype(int)
    assert np.abs(expected - smooth()).max() > 10
    for format, strip in (("BMP", False), ("PNG", True), ("TIFF", True)):
        pixels = read_picture(encode_picture(picture, format=format, strip=strip)).pixels
        pixels = pixels / 257 if pixels.dtype == np.uint16 else pixels
        assert np.abs(pixels - expected).max() <= 2, (format, strip)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_profiles(dtype: type) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pixels = ramp if dtype is np.uint8 else ramp.astype(np.uint16) * 257
    picture = Picture(pixels, metadata=Metadata(icc=GREY_18))
    kept = read_picture(encode_picture(picture, format="PNG"))
    assert kept.metadata.icc == GREY_18
    expected = 1.055 * (ramp / 255) ** (1.8008 / 2.4) - 0.055
    expected = np.where((ramp / 255) ** 1.8008 <= 0.0031308, 12.92 * (ramp / 255) ** 1.8008, expected) * 255
    for data in (
        encode_picture(picture, format="PNG", strip=True),
        encode_picture(picture, format="WEBP", quality=100),
    ):
        result = read_picture(data)
        assert result.metadata.icc is None
        scale = 257 if result.depth_bits == 16 else 1
        assert np.abs(result.pixels[..., :1] / scale - expected).max() <= 2


def test_srgb_pixels_do_not_move_when_stripped() -> None:
    for dtype in (np.uint8, np.uint16):
        picture = Picture(drawn(dtype=dtype), metadata=Metadata(icc=SRGB))
        same(picture, read_picture(encode_picture(picture, format="PNG", strip=True)))


def test_16_bit_with_a_table_profile_cannot_be_stripped() -> None:
    table = P3.replace(b"gXYZ", b"A2B0", 1)
    with pytest.raises(OutputError, match="16 bit"):
        to_srgb(drawn(dtype=np.uint16), table)


def test_profiles_that_do_not_fit_are_dropped() -> None:
    grey = Image.fromarray(smooth()[..., 0])
    for image, icc in (
        (grey, P3),
        (Image.fromarray(smooth()), GREY_18),
        (Image.fromarray(smooth()), P3[:100]),
        (Image.fromarray(smooth()), b"rubbish" * 40),
        (Image.fromarray(smooth()).convert("CMYK"), P3),
    ):
        picture = read_picture(saved(image, "JPEG", icc_profile=icc))
        assert picture.metadata.icc is None
    assert read_picture(saved(grey, "JPEG", icc_profile=GREY_18)).metadata.icc == GREY_18


def test_cmyk_jpeg_keeps_its_colours() -> None:
    rgb = Image.new("RGB", (8, 8), (200, 30, 60))
    picture = read_picture(saved(rgb.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(picture.pixels.astype(int) - (200, 30, 60)).max() < 6


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(format: str) -> None:
    inks = np.zeros((8, 16, 4), np.uint8)
    inks[:, 8:, 0] = 255
    picture = read_picture(saved(Image.fromarray(inks, "CMYK"), format, icc_profile=cmyk_all_ink_is_black()))
    assert picture.metadata.icc is None
    assert picture.pixels[:, :8].min() > 245
    assert picture.pixels[:, 8:].max() < 10  # cyan without the profile


@pytest.mark.parametrize("format", ALL)
def test_probe_agrees_with_read(format: str) -> None:
    for dtype in (np.uint8, np.uint16):
        for channels in (1, 3):
            data = encode_picture(Picture(drawn(21, 13, channels, dtype)), format=format)
            info, picture = probe_picture(data), read_picture(data)
            assert (info.format, info.width, info.height) == (picture.format, 21, 13)
            assert info.depth_bits == picture.depth_bits


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", *(["AVIF"] if "AVIF" in FORMATS else [])])
def test_several_frames_are_refused(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(3)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    for read in (read_picture, probe_picture):
        with pytest.raises(ImageError, match=r"3 (frames|pages)"):
            read(data)


def test_mpo_is_read_as_the_photograph_it_is() -> None:
    photo, preview = Image.fromarray(smooth()), Image.new("RGB", (4, 4))
    picture = read_picture(saved(photo, "MPO", save_all=True, append_images=[preview]))
    assert picture.format == "JPEG"
    assert (picture.width, picture.height) == (32, 24)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"GIF89a" + bytes(60), "GIF"),
        (b"8BPS" + bytes(60), "Photoshop"),
        (bytes(3) + b"\x18ftypheic" + bytes(60), "HEIC"),
        (bytes(3) + b"\x18ftypmif1\0\0\0\0mif1heic" + bytes(60), "HEIC"),
        (b"\xff\x0a" + bytes(60), "JPEG XL"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"%PDF-1.7" + bytes(60), "PDF"),
        (b"P6\n2 2\n255\n" + bytes(12), "PNM"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(60), "camera raw"),
        (b"hello there", "not a picture"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
def test_other_files_are_named(head: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a picture\nof mine.png"
    path.write_bytes(head)
    for source in (head, path):
        for read in (read_picture, probe_picture):
            with pytest.raises(ImageError, match=what) as caught:
                read(source)
            assert "\n" not in str(caught.value)
            assert what in ("damaged",) or "PNG, JPEG" in str(caught.value)
    assert not is_complete_picture(path)


def test_camera_raw_by_extension(tmp_path: Path) -> None:
    path = tmp_path / "DSC_1.NEF"
    path.write_bytes(tiff(drawn(), "<"))
    with pytest.raises(ImageError, match="camera raw"):
        read_picture(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, what in ((tmp_path, "folder"), (tmp_path / "none.png", "does not exist"), (tmp_path / "a\0b", "a.x00b")):
        for read in (read_picture, probe_picture):
            with pytest.raises(ImageError, match=what):
                read(path)
        assert not is_complete_picture(path)
    locked = tmp_path / "locked.png"
    locked.write_bytes(encode_picture(Picture(drawn()), format="PNG"))
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(ImageError, match="permission"):
            read_picture(locked)


@pytest.mark.parametrize(
    "name", ["Bild Ähre 画像 🎨.png", "-rf.png", "a'b\"c.png", "line\nbreak.png", "%s {0}.PNG", "x" * 251 + ".png"]
)
def test_odd_names(name: str, tmp_path: Path) -> None:
    picture = Picture(drawn())
    write_picture(tmp_path / name, picture)
    same(picture, read_picture(tmp_path / name))
    assert is_complete_picture(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="names of arbitrary bytes")
def test_undecodable_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        write_picture(path, Picture(drawn()))
    except OutputError:
        pytest.skip("a file system for Unicode only")
    same(Picture(drawn()), read_picture(path))
    path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    str(caught.value).encode("utf-8")


def bomb(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(900))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (13_400, 13_400), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_at_once(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    tracemalloc.start()
    for read in (read_picture, probe_picture):
        with pytest.raises(ImageError, match="pixels"):
            read(bomb(*size))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert time.perf_counter() - start < 1


def test_the_limit_can_be_moved_and_nothing_global_with_it() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encode_picture(Picture(drawn(20, 10)), format="WEBP")
    assert read_picture(data, max_pixels=200).width == 20
    with pytest.raises(ImageError, match=r"20x10 = 200 pixels, more than the 199 "):
        read_picture(data, max_pixels=199)
    with pytest.raises(ImageError, match=r"too many pixels|more than"):
        read_picture(data, max_pixels=20)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("chunk_name", [b"iCCP", b"zTXt", b"iTXt"])
def test_compressed_metadata_bombs(chunk_name: bytes) -> None:
    packed = zlib.compress(bytes(200 << 20), 9)
    data = b"a\0\0" + packed if chunk_name != b"iTXt" else b"a\0\1\0\0\0" + packed
    with pytest.raises(ImageError):
        read_picture(png(drawn(), 2, chunk(chunk_name, data), bits=8))


@pytest.mark.parametrize("format", ALL)
def test_truncated_files(format: str, tmp_path: Path) -> None:
    data = encode_picture(Picture(drawn(48, 40)), format=format)
    path = tmp_path / f"cut{FORMATS[format][0]}"
    path.write_bytes(data)
    assert is_complete_picture(path)
    for eighth in range(8):
        path.write_bytes(data[: len(data) * eighth // 8])
        assert not is_complete_picture(path)
        with pytest.raises(ImageError):
            read_picture(path)
    path.write_bytes(data[:-1])
    assert not is_complete_picture(path)


def test_a_damaged_png_is_not_complete(tmp_path: Path) -> None:
    data = bytearray(encode_picture(Picture(drawn()), format="PNG"))
    data[len(data) // 2] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert not is_complete_picture(path)


@pytest.mark.parametrize("format", ALL)
def test_mutated_bytes_only_ever_raise_image_error(format: str) -> None:
    rng = np.random.default_rng(zlib.crc32(format.encode()))
    metadata = Metadata(P3, exif_block(), XMP)
    deep = np.uint16 if format in ("PNG", "TIFF") else np.uint8
    sources = [encode_picture(Picture(drawn(dtype=deep), metadata=metadata), format=format)]
    sources += [encode_picture(Picture(smooth(9, 9)), format=format)]
    for i in range(60):
        data = bytearray(sources[i % 2])
        for at in rng.integers(0, len(data) if i % 3 else min(len(data), 120), rng.integers(1, 8)):
            data[at] = rng.integers(256)
        if i % 5 == 0:
            data = data[: rng.integers(0, len(data))]
        for read in (read_picture, probe_picture, read_and_write):
            try:
                read(bytes(data))
            except ImageError as error:
                assert "\n" not in str(error)  # noqa: PT017


def read_and_write(data: bytes) -> None:
    picture = read_picture(data, max_pixels=10_000)
    encode_picture(picture, format="TIFF")


def test_threads_leave_the_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    sources = [encode_picture(Picture(drawn(seed=i), metadata=Metadata(P3)), format="PNG") for i in range(4)]
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for k in range(25):
                same(Picture(drawn(seed=(i + k) % 4)), read_picture(sources[(i + k) % 4]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == before


# --- writing ----------------------------------------------------------------------------------------------------------


def test_format_by_extension(tmp_path: Path) -> None:
    for format, extensions in FORMATS.items():
        for extension in extensions:
            assert format_for(Path(f"x{extension.upper()}")) == format
    for name in ("x", "x.gif", "x.heic" if "HEIC" not in FORMATS else "x.heics", ".png"):
        with pytest.raises(OutputError, match=r"\.png \.jpg"):
            format_for(tmp_path / name)
    write_picture(tmp_path / "odd.dat", Picture(drawn()), format="PNG")
    assert read_picture(tmp_path / "odd.dat").format == "PNG"


def test_impossible_requests() -> None:
    for quality in (0, 101, -5):
        with pytest.raises(UsageError, match="1 to 100"):
            encode_picture(Picture(drawn()), format="JPEG", quality=quality)
    with pytest.raises(OutputError, match="GIF cannot be written"):
        encode_picture(Picture(drawn()), format="GIF")
    for format, side in (("WEBP", 16_383), ("JPEG", 65_535), ("AVIF", 32_768)):
        if format in FORMATS:
            with pytest.raises(OutputError, match=str(side)):
                encode_picture(Picture(np.zeros((1, side + 1, 3), np.uint8)), format=format)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", *(["AVIF"] if "AVIF" in FORMATS else [])])
def test_quality_matters(format: str) -> None:
    noise = Picture(drawn(64, 64))
    assert len(encode_picture(noise, format=format, quality=20)) < len(encode_picture(noise, format=format))


def test_jpeg_keeps_fine_colour() -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    again = read_picture(encode_picture(Picture(stripes), format="JPEG"))
    assert np.abs(again.pixels.astype(int) - stripes).mean() < 5


def test_reading_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(drawn()))
    before = path.read_bytes()
    read_picture(path)
    probe_picture(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
