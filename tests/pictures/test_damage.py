"""Damaged pictures are refused as damaged, mendable ones mended, unread kinds named; nothing is printed."""

import io
import os
import re
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, features

from dreamsr.errors import DamagedError, ImageError
from dreamsr.pictures.colours.boxes import coded_main
from dreamsr.pictures.decoding.chatter import caught
from dreamsr.pictures.decoding.hevc import hevc_damage
from dreamsr.pictures.picture import FORMATS
from dreamsr.pictures.png import SIGNATURE, chunk
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.tiff import LONG, SHORT, Layout, Node, numbers, write_directory, write_header

END = b"\xff\xd9"
needs_avif = pytest.mark.skipif(
    not features.check("avif") or not re.search(r"AVIF: +(?!NO)\w", cv2.getBuildInformation()),
    reason="Pillow or OpenCV without AVIF",
)
needs_libde265 = pytest.mark.skipif(
    "HEIC" not in FORMATS or sys.platform == "win32", reason="without the extra heic, or its libde265 out of reach"
)


def photo(height: int = 120, width: int = 160) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9) + np.cos(y / 7), np.sin(x / 5 + y / 8), np.cos(x / 11) * np.sin(y / 3)], axis=-1)
    noise = np.random.default_rng(2).normal(0, 6, waves.shape)
    return Image.fromarray((waves * 50 + 128 + noise).clip(0, 255).astype(np.uint8))


def encoded(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    photo().save(file, format, **options)
    return file.getvalue()


def zeroed(data: bytes, share: float = 0.5, count: int = 400) -> bytes:
    at = int(len(data) * share)
    return data[:at] + bytes(count) + data[at + count :]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "restart_marker_rows": 1}])
@pytest.mark.parametrize("how", ["cut", "cut with an end marker", "zeros", "32 bytes less"])
def test_damaged_jpegs(how: str, options: dict, tmp_path: Path) -> None:
    whole = encoded("JPEG", **options)
    half = whole[: len(whole) // 2]
    damaged = {"cut": half, "cut with an end marker": half + END, "zeros": zeroed(whole), "32 bytes less": whole[:-32]}
    path = tmp_path / "damaged.jpg"
    path.write_bytes(damaged[how])
    assert not is_complete_picture(path)
    with pytest.raises(DamagedError, match=r"damaged\.jpg is damaged \(.*\): part of it") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    picture = read_picture(path, accept_damaged=True)
    assert picture.pixels.shape == (120, 160, 3)
    assert any("damaged" in note for note in picture.notes)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_marker_is_read(options: dict) -> None:
    whole = encoded("JPEG", quality=90, **options)
    picture = read_picture(whole[:-2])
    np.testing.assert_array_equal(picture.pixels, read_picture(whole).pixels)
    assert picture.notes == ()
    assert read_picture(whole[:-2] + bytes(30) + END).notes == ()  # padding before it is no damage
    assert read_picture(whole + b"anything behind it").notes == ()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_sound_jpegs_of_other_colours(mode: str) -> None:
    file = io.BytesIO()
    photo().convert(mode).save(file, "JPEG")
    assert read_picture(file.getvalue()).notes == ()
    with pytest.raises(DamagedError):
        read_picture(zeroed(file.getvalue()))


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 20}])
def test_damaged_webps(options: dict, tmp_path: Path) -> None:
    whole = encoded("WEBP", **options)
    assert read_picture(whole).notes == ()
    path = tmp_path / "damaged.webp"
    path.write_bytes(zeroed(whole, count=len(whole) // 2))
    assert not is_complete_picture(path)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (90, 70), (2000, 1500)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"method": 6, "quality": 30}, {"method": 0}])
def test_sound_webps_are_not_suspected(options: dict, size: tuple[int, int]) -> None:
    for image in (Image.new("RGB", size, "black"), photo().resize(size), photo().resize(size).convert("RGBA")):
        file = io.BytesIO()
        image.save(file, "WEBP", **options)
        assert read_picture(file.getvalue()).notes == ()


def ways_to_damage(data: bytes, first: int) -> dict[str, bytes]:
    """The file with something wrong in its coded picture, which begins at `first` and goes on to the end."""
    middle, last = (first + len(data)) // 2, (len(data) - first) // 10
    flipped = bytearray(data)
    flipped[middle] ^= 4
    return {
        "half of it zeros": data[:middle] + bytes(len(data) - middle),
        "the last of it zeros": data[:-last] + bytes(last),
        "zeros inside": data[:middle] + bytes(40) + data[middle + 40 :],
        "one bit": bytes(flipped),
        "half of it": data[:middle],
    }


def refused_unless_accepted(data: bytes, whole: bytes, path: Path) -> None:
    path.write_bytes(data)
    assert not is_complete_picture(path)
    with pytest.raises(DamagedError, match=r"is damaged \(.+\): part of it is missing or wrong") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    picture = read_picture(path, accept_damaged=True)
    assert picture.pixels.shape == read_picture(whole).pixels.shape
    assert any("damaged" in note for note in picture.notes)


def refused_in_every_way(whole: bytes, path: Path) -> None:
    """A sound AVIF or HEIC is read without a note, and each way to damage its pixels is seen."""
    assert read_picture(whole).notes == ()
    ways = ways_to_damage(whole, whole.index(b"mdat") + 4)
    with pytest.raises(ImageError):
        read_picture(ways.pop("half of it"))
    for data in ways.values():
        refused_unless_accepted(data, whole, path)


@needs_avif
@pytest.mark.parametrize("options", [{"quality": 95}, {"subsampling": "4:4:4", "quality": 90}])
def test_damaged_avifs(options: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded("AVIF", **options)
    refused_in_every_way(whole, tmp_path / "damaged.avif")
    assert capfd.readouterr().err == ""


@needs_avif
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (300, 200)])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4", "quality": 100}, {"quality": 20, "speed": 10}])
def test_sound_avifs_are_not_suspected(options: dict, size: tuple[int, int]) -> None:
    for image in (photo().resize(size), photo().resize(size).convert("RGBA"), photo().resize(size).convert("L")):
        file = io.BytesIO()
        image.save(file, "AVIF", **options)
        assert read_picture(file.getvalue()).notes == ()


def heic(image: Image.Image, **options: object) -> bytes:
    from dreamsr.pictures.heic import register

    register()
    file = io.BytesIO()
    image.save(file, "HEIF", **options)
    return file.getvalue()


@needs_libde265
@pytest.mark.parametrize("options", [{}, {"quality": 95, "chroma": 444}, {"quality": -1}])
def test_damaged_heics(options: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = heic(photo(240, 320), **options)
    refused_in_every_way(whole, tmp_path / "damaged.heic")
    assert capfd.readouterr().err == ""


@needs_libde265
def test_damage_to_the_alpha_of_a_heic_is_seen(tmp_path: Path) -> None:
    image = photo(240, 320)
    image.putalpha(image.convert("L"))
    whole = heic(image, quality=95)
    parts = coded_main(whole)
    assert len(parts) == 2
    at = whole.index(parts[1].stream) + len(parts[1].stream) // 2
    refused_unless_accepted(whole[:at] + bytes(60) + whole[at + 60 :], whole, tmp_path / "damaged.heic")


@needs_libde265
def test_boxes_that_lie_leave_the_answer_to_the_decoder() -> None:
    whole = heic(photo())
    for end in range(0, whole.index(b"mdat"), 7):
        assert hevc_damage(whole[:end]) == ""
        assert all(len(picture.stream) <= end for picture in coded_main(whole[:end]))


@pytest.mark.parametrize("strip_rows", [40, 120])
def test_damaged_jpegs_in_tiffs(strip_rows: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded("TIFF", compression="jpeg", tiffinfo={278: strip_rows})
    assert read_picture(whole).notes == ()
    with tifffile.TiffFile(io.BytesIO(whole)) as written:
        tags = written.pages[0].tags
        start, count = (tags[name].value[-1] for name in ("StripOffsets", "StripByteCounts"))
    middle = start + count // 2
    for end in (start + count - 2, start + count):  # with its end marker, and without
        refused_unless_accepted(whole[:middle] + bytes(end - middle) + whole[end:], whole, tmp_path / "damaged.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("count", [1, 3])
def test_damaged_jpegs_in_planes(count: int) -> None:
    """With one plane per channel, each consists of JPEGs of its own."""
    greys = [encoded_grey(plane) for plane in photo().split()[:count]]
    whole = tiff_of_jpegs(greys)
    assert read_picture(whole).pixels.shape == (120, 160, count)
    at = whole.index(greys[-1]) + len(greys[-1]) // 2
    with pytest.raises(ImageError, match=r"is damaged \("):
        read_picture(whole[:at] + bytes(40) + whole[at + 40 :])


def encoded_grey(plane: Image.Image) -> bytes:
    file = io.BytesIO()
    plane.save(file, "JPEG")
    return file.getvalue()


def tiff_of_jpegs(planes: list[bytes]) -> bytes:
    """A TIFF of one JPEG per channel, 160x120."""
    layout, count = Layout("<"), len(planes)
    body = b"".join(planes)
    places = [8 + sum(map(len, planes[:index])) for index in range(count)]
    tags: dict[int, Node] = {
        tag: numbers(LONG if tag in (273, 279) else SHORT, values, "<")
        for tag, values in {
            256: [160], 257: [120], 258: [8] * count, 259: [7], 262: [2 if count == 3 else 1], 273: places,
            277: [count], 278: [120], 279: list(map(len, planes)), 284: [2 if count > 1 else 1],
        }.items()
    }  # fmt: skip
    at = 8 + len(body) + len(body) % 2
    return (write_header(layout, at) + body).ljust(at, b"\0") + write_directory(tags, layout, at)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (64, 64)}])
def test_deflated_tiffs_are_held_to_their_checksums(layout: dict, tmp_path: Path) -> None:
    """libtiff stops at the last row, and takes zeros for codes."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(photo()), photometric="rgb", compression="zlib", metadata=None, **layout)
    whole = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(whole)) as written:
        page = written.pages[0]
        middle = page.dataoffsets[2] + page.databytecounts[2] // 2
    path = tmp_path / "damaged.tif"
    path.write_bytes(whole[:middle] + bytes(30) + whole[middle + 30 :])
    assert not is_complete_picture(path)
    with pytest.raises(DamagedError, match=r"damaged \(ZIP: incorrect data check\)"):
        read_picture(path)


def test_kinds_of_bmp_that_are_not_read_are_not_called_damaged() -> None:
    file = io.BytesIO()
    photo().save(file, "BMP")
    data = bytearray(file.getvalue())
    data[28] = 2  # bits per pixel
    with pytest.raises(ImageError, match=r"not read \(Unsupported BMP pixel depth \(2\)\); save it again") as caught:
        read_picture(bytes(data))
    assert "damaged" not in str(caught.value)


def png_with(name: bytes, *, before: bool, flip: bool = True) -> bytes:
    """A PNG with one chunk more, whose checksum is wrong."""
    pixels = encoded("PNG")
    extra = bytearray(chunk(name, b"Comment\0a word"))
    extra[-1] ^= flip
    at = 8 + 25 if before else len(pixels) - 12
    return pixels[:at] + bytes(extra) + pixels[at:]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", [b"tEXt", b"tIME", b"eXIf", b"iTXt"])
def test_a_damaged_text_costs_the_text_alone(name: bytes, before: bool) -> None:
    data = png_with(name, before=before)
    assert probe_picture(data).width == 160
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels, np.asarray(photo()))
    assert picture.notes == ("damaged metadata was left out",)


@pytest.mark.parametrize("name", [b"tRNS", b"gAMA", b"cHRM"])
def test_damage_to_how_a_png_looks_is_damage(name: bytes) -> None:
    with pytest.raises(ImageError, match="damaged"):
        read_picture(png_with(name, before=True))


def test_a_png_with_another_byte_is_damaged() -> None:
    """Stored without compression, it would decode to another pixel without an error."""
    rows = b"".join(b"\0" + bytes(range(30)) for _ in range(10))
    header = chunk(b"IHDR", (10).to_bytes(4) * 2 + b"\x08\x02\0\0\0")
    data = bytearray(SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))
    assert read_picture(bytes(data)).pixels[0, 0].tolist() == [0, 1, 2]
    data[-30] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        read_picture(bytes(data))


def test_jpegs_that_are_not_read_are_named() -> None:
    whole = encoded("JPEG")
    at = whole.index(b"\xff\xc0")
    for change, what in (
        (lambda d: d.__setitem__(at + 4, 12), "12-bit"),
        (lambda d: d.__setitem__(at + 1, 0xC3), "lossless"),
    ):
        data = bytearray(whole)
        change(data)
        with pytest.raises(ImageError, match=f"a {what} JPEG, which is not read") as caught:
            read_picture(bytes(data))
        assert "damaged" not in str(caught.value)


def tiff_with(compression: str, **tags: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.asarray(photo()), photometric="rgb", compression=compression, rowsperstrip=16, metadata=None
    )
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as written:
        for name, value in tags.items():
            at = written.pages[0].tags[name].valueoffset
            data[at : at + 2] = value.to_bytes(2, "little")
    return bytes(data)


def test_tiffs_in_other_compressions_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    for number in (50001, 34661, 50002, 34887):  # WebP, JBIG, JPEG XL, LERC
        data = tiff_with("deflate", Compression=number)
        with pytest.raises(ImageError, match="is not read") as caught:
            read_picture(data)
        assert "damaged" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("written_by", "word"), [("tifffile", "ZIP"), ("libtiff", "code not yet in table")])
def test_what_libtiff_says_of_damage_is_in_the_message(
    written_by: str, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lzw = encoded("TIFF", compression="tiff_lzw", tiffinfo={278: 16})
    data = bytearray(tiff_with("deflate") if written_by == "tifffile" else lzw)
    with tifffile.TiffFile(io.BytesIO(data)) as written:
        at = written.pages[0].tags["StripOffsets"].value[3]
    data[at : at + 40] = bytes(40)
    with pytest.raises(ImageError, match=rf"the given data is damaged.*{word}") as caught:
        read_picture(bytes(data))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_threads_hear_of_their_own_files_alone(capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded("JPEG")
    files = [whole, zeroed(whole)] * 8
    with ThreadPoolExecutor(6) as pool:
        notes = list(pool.map(lambda data: read_picture(data, accept_damaged=True).notes, files))
    assert [bool(one) for one in notes] == [False, True] * 8
    assert capfd.readouterr().err == ""


def test_what_others_print_meanwhile_comes_out(capfd: pytest.CaptureFixture[str]) -> None:
    with caught() as lines:
        os.write(2, b"ZIPDecode: Decoding error.\n\x1b[2K 40 % done\n: WEBP compression support is not configured.\n")
        os.write(2, b"[ERROR:0@1.432] global loadsave.cpp:1390 imdecode_ can't read\n\ndone\n")
    theirs = ["ZIPDecode: Decoding error", ": WEBP compression support is not configured"]
    assert lines == [*theirs, "[ERROR:0@1.432] global loadsave.cpp:1390 imdecode_ can't read"]
    assert capfd.readouterr().err == "\x1b[2K 40 % done\ndone\n"
