"""What the numbers of a picture mean, said by other things than ICC profiles: shown colours stay the same."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from dreamsr.errors import ImageError
from dreamsr.pictures.colours.av1 import codes_of
from dreamsr.pictures.colours.boxes import Nclx, bits_of, nclx_of, properties_of_main, stream_of_main
from dreamsr.pictures.colours.icc import to_srgb
from dreamsr.pictures.colours.meaning import Primaries, made_profile
from dreamsr.pictures.exif import exif_for_size, is_adobe_rgb
from dreamsr.pictures.picture import FORMATS, Picture
from dreamsr.pictures.png import SIGNATURE, chunk, chunks
from dreamsr.pictures.read import from_pil, probe_picture, read_picture
from dreamsr.pictures.write import encode_picture, to_pil

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
CODES = (150, 110, 90)  # inside sRGB under every meaning below

# Published matrices from linear colours to linear sRGB.
FROM_P3 = [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]
FROM_ADOBE = [[1.3982832, -0.3982831, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429383, 1.0429383]]
FROM_2020 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
SAME = np.eye(3)


def srgb_to_linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def power(exponent: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda values: values**exponent


def shown(matrix: object, curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """sRGB codes, 0 to 255, of what CODES show."""
    linear = np.asarray(matrix) @ curve(np.array(CODES) / 255)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def saved(format: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (16, 16), CODES if mode == "RGB" else CODES[0]).save(file, format, **options)
    return file.getvalue()


def png(*extra: bytes, mode: str = "RGB") -> bytes:
    """A PNG with `extra` chunks behind its header."""
    data = saved("PNG", mode)
    at = len(SIGNATURE) + 25
    return data[:at] + b"".join(extra) + data[at:]


def avif(primaries: int, transfer: int, **options: object) -> bytes:
    """An AVIF whose colour box holds other code points."""
    data = saved("AVIF", quality=100, **options)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def chrm(*points: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8L", *(round(value * 100000) for value in points)))


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">L", round(value * 100000)))


def camera_exif(space: int, index: bytes, order: str = "<") -> bytes:
    """EXIF with a colour space and an interoperability index, as cameras write them."""

    def directory(*entries: bytes) -> bytes:
        return struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)

    def long(tag: int, value: int) -> bytes:
        return struct.pack(order + "HHLL", tag, 4, 1, value)

    first = directory(long(34665, 26))
    inner = directory(struct.pack(order + "HHLHH", 40961, 3, 1, space, 0), long(40965, 56))
    last = directory(struct.pack(order + "HHL4s", 1, 2, 4, index))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + mark + struct.pack(order + "L", 8) + first + inner + last


ADOBE_CHRM = chrm(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
P3_CHRM = chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)

STATED = {
    "cICP P3": (lambda: png(chunk(b"cICP", bytes([12, 13, 0, 1]))), shown(FROM_P3, srgb_to_linear)),
    "cICP before gAMA": (lambda: png(gama(1), chunk(b"cICP", bytes([9, 14, 0, 1]))), shown(FROM_2020, srgb_to_linear)),
    "cICP linear": (lambda: png(chunk(b"cICP", bytes([1, 8, 0, 1]))), shown(SAME, power(1))),
    "gAMA linear": (lambda: png(gama(1.0)), shown(SAME, power(1))),
    "gAMA 1.8": (lambda: png(gama(1 / 1.8)), shown(SAME, power(1.8))),
    "gAMA and cHRM": (lambda: png(gama(1 / 2.2), ADOBE_CHRM), shown(FROM_ADOBE, power(2.2))),
    "cHRM alone": (lambda: png(P3_CHRM), shown(FROM_P3, srgb_to_linear)),
    "R03": (lambda: saved("JPEG", quality=100, exif=camera_exif(0xFFFF, b"R03\0")), shown(FROM_ADOBE, power(2.2))),
    "R03 big-endian": (
        lambda: saved("WEBP", lossless=True, exif=camera_exif(0xFFFF, b"R03\0", ">")),
        shown(FROM_ADOBE, power(2.2)),
    ),
    "space 2": (lambda: saved("PNG", exif=camera_exif(2, b"R03\0")), shown(FROM_ADOBE, power(2.2))),
    "space 2 in TIFF": (
        lambda: encode_picture(read_picture(saved("PNG", exif=camera_exif(2, b"R03\0"))), format="TIFF"),
        shown(FROM_ADOBE, power(2.2)),
    ),
}


def bmp(space: int, *, profile: bytes = b"") -> bytes:
    """A BMP with a header of version 5: Adobe RGB's primaries and gamma 2.2, or a profile."""
    plain = saved("BMP")
    pixels = plain[54:]
    points = ((0.64, 0.33, 0.03), (0.21, 0.71, 0.08), (0.15, 0.06, 0.79))
    ends = struct.pack("<9l", *(round(value * 2**30) for point in points for value in point))
    header = struct.pack("<L", 124) + plain[18:54] + bytes(16) + struct.pack("<L", space)
    header += ends + struct.pack("<3L", *[round(2.2 * 65536)] * 3)
    header += struct.pack("<4L", 4, 124 + len(pixels), len(profile), 0)
    assert len(header) == 124
    size = 14 + 124 + len(pixels) + len(profile)
    return b"BM" + struct.pack("<LLL", size, 0, 14 + 124) + header + pixels + profile


ADOBE_PRIMARIES = Primaries((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
STATED |= {
    "BMP calibrated": (lambda: bmp(0), shown(FROM_ADOBE, power(2.2))),
    "BMP with a profile": (
        lambda: bmp(0x4D424544, profile=made_profile(ADOBE_PRIMARIES, (1.8,), is_grey=False)),
        shown(FROM_ADOBE, power(1.8)),
    ),
    "TIFF chromaticities": (
        lambda: saved("TIFF", tiffinfo={318: (0.3127, 0.329), 319: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}),
        shown(FROM_P3, srgb_to_linear),
    ),
}
if "AVIF" in FORMATS:
    STATED |= {
        "nclx P3": (lambda: avif(12, 13), shown(FROM_P3, srgb_to_linear)),
        "nclx 2020": (lambda: avif(9, 14), shown(FROM_2020, srgb_to_linear)),
        "nclx gamma 2.8": (lambda: avif(1, 5), shown(SAME, power(2.8))),
    }


def as_srgb(picture: Picture) -> NDArray[np.float64]:
    """What colour management shows of a picture, mean sRGB codes."""
    icc = picture.metadata.icc
    pixels = to_srgb(picture.pixels, icc) if icc else picture.pixels
    return pixels.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("kind", STATED)
def test_every_meaning_is_carried_into_every_format(kind: str) -> None:
    make, expected = STATED[kind]
    picture = read_picture(make())
    assert np.abs(as_srgb(picture) - expected).max() < 2, "as read"
    assert np.abs(expected - CODES).max() > 3  # else the test would say nothing
    for format in FORMATS:
        written = read_picture(encode_picture(picture, format=format, quality=100))
        assert np.abs(as_srgb(written) - expected).max() < 3, format
        plain = read_picture(encode_picture(picture, format=format, quality=100, strip=True))
        assert plain.metadata.icc is None, format
        assert np.abs(plain.pixels.reshape(-1, 3).mean(axis=0) - expected).max() < 3, format


@pytest.mark.parametrize("kind", ["gAMA 1.8", "gAMA and cHRM", "R03"])
def test_pillow_images_carry_it_too(kind: str) -> None:
    make, expected = STATED[kind]
    image = to_pil(from_pil(Image.open(io.BytesIO(make()))))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(converted).reshape(-1, 3).mean(axis=0) - expected).max() < 2


def test_16_bit_is_converted_at_16_bit() -> None:
    deep = Picture(np.broadcast_to(np.array(CODES, np.uint16) * 257, (4, 5, 3)).copy())
    data = encode_picture(deep, format="PNG")
    at = len(SIGNATURE) + 25
    picture = read_picture(data[:at] + chunk(b"cICP", bytes([12, 13, 0, 1])) + data[at:])
    plain = read_picture(encode_picture(picture, format="PNG", strip=True))
    assert plain.depth_bits == 16
    assert np.abs(plain.pixels[0, 0] / 257 - shown(FROM_P3, srgb_to_linear)).max() < 0.2


def test_grey_with_a_gamma() -> None:
    picture = read_picture(png(gama(1.0), mode="L"))
    assert picture.is_grey
    expected = shown(SAME, power(1))[0]
    for format in FORMATS:
        plain = read_picture(encode_picture(picture, format=format, strip=True, quality=100))
        assert np.abs(plain.pixels.astype(float) - expected).max() < 3, format


@pytest.mark.parametrize(
    "data",
    [
        png(),
        png(chunk(b"cICP", bytes([1, 13, 0, 1]))),
        png(chunk(b"sRGB", b"\0"), gama(1.0)),
        png(chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)),
        png(gama(0)),
        bmp(0x73524742),
        bmp(0).replace(struct.pack("<L", round(2.2 * 65536)), bytes(4)),
        bmp(0x4D424544, profile=b"nonsense"),
        saved("TIFF", tiffinfo={318: (0.3127, 0.329)}),
        png(chrm(*[0] * 8)),
        png(chrm(*[0.3] * 8)),
        saved("JPEG", exif=camera_exif(1, b"R98\0")),
        saved("JPEG", exif=camera_exif(0xFFFF, b"R98\0")),
        saved("JPEG", exif=camera_exif(1, b"R03\0")),
    ],
)
def test_srgb_and_nonsense_need_no_profile(data: bytes) -> None:
    assert read_picture(data).metadata.icc is None


@needs_avif
@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (1, 1), (2, 2), (1, 6)])
def test_nclx_that_means_srgb_needs_no_profile(primaries: int, transfer: int) -> None:
    assert read_picture(avif(primaries, transfer)).metadata.icc is None


@needs_avif
def test_a_profile_goes_before_nclx_and_exif() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(saved("AVIF", icc_profile=srgb)).metadata.icc == srgb
    assert read_picture(saved("JPEG", icc_profile=srgb, exif=camera_exif(2, b"R03\0"))).metadata.icc == srgb


def test_a_png_code_point_goes_before_its_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved("PNG", icc_profile=srgb)
    at = len(SIGNATURE) + 25
    picture = read_picture(data[:at] + chunk(b"cICP", bytes([12, 13, 0, 1])) + data[at:])
    assert np.abs(as_srgb(picture) - shown(FROM_P3, srgb_to_linear)).max() < 2


def hdr_files() -> list[tuple[bytes, str]]:
    files = [(png(chunk(b"cICP", bytes([9, 16, 0, 1]))), "PQ"), (png(chunk(b"cICP", bytes([9, 18, 0, 1]))), "HLG")]
    profile = made_profile(ADOBE_PRIMARIES, (2.2,), is_grey=False)
    files.append((png(chunk(b"iCCP", b"ITUR_2100_PQ_FULL\0\0" + zlib.compress(profile))), "PQ"))
    return files + ([(avif(9, 16), "PQ"), (avif(9, 18), "HLG")] if "AVIF" in FORMATS else [])


@pytest.mark.parametrize(("data", "name"), hdr_files())
@pytest.mark.parametrize("look", [read_picture, probe_picture])
def test_hdr_is_refused_with_what_to_do(data: bytes, name: str, look: Callable[[bytes], object]) -> None:
    with pytest.raises(ImageError, match=rf"HDR picture \({name}\).*convert it"):
        look(data)


def test_narrow_range_is_refused() -> None:
    with pytest.raises(ImageError, match="narrow range"):
        read_picture(png(chunk(b"cICP", bytes([1, 13, 0, 0]))))


def test_unknown_meanings_are_refused() -> None:
    with pytest.raises(ImageError, match=r"unknown meaning \(code points 77/13\)"):
        read_picture(png(chunk(b"cICP", bytes([77, 13, 0, 1]))))


def test_the_size_beside_the_index_is_corrected() -> None:
    one = camera_exif(1, b"R98\0")
    width = struct.pack("<HHLL", 4097, 4, 1, 7)
    two = one[:62] + struct.pack("<H", 2) + one[64:76] + width + bytes(4)
    grown = exif_for_size(two, 64, 48)
    assert grown == two.replace(width, struct.pack("<HHLL", 4097, 4, 1, 64))
    assert grown != two


def test_exif_follows_pixels_that_became_srgb() -> None:
    grey = read_picture(saved("JPEG", "L", exif=camera_exif(0xFFFF, b"R03\0")))
    assert is_adobe_rgb(grey.metadata.exif)
    written = read_picture(encode_picture(grey, format="WEBP"))  # which holds no grey profile
    assert written.metadata.exif is not None
    assert not is_adobe_rgb(written.metadata.exif)
    assert b"R98" in written.metadata.exif


def without_colour_box(data: bytes, primaries: int, transfer: int) -> bytes:
    """The AVIF with its colour box taken for something else, and other code points in its AV1 stream."""
    start = data.index(stream_of_main(data))
    bits = "".join(f"{byte:08b}" for byte in data[start : start + 64])
    before = "".join(f"{value:08b}" for value in (1, 13, 6))
    assert bits.count(before) == 1
    bits = bits.replace(before, f"{primaries:08b}{transfer:08b}{6:08b}")
    changed = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return (data[:start] + changed + data[start + 64 :]).replace(b"colrnclx", b"skipnclx")


@needs_avif
@pytest.mark.parametrize("options", [{}, {"quality": 60}, {"speed": 10}, {"subsampling": "4:2:0"}])
def test_the_av1_stream_speaks_where_there_is_no_colour_box(options: dict[str, object]) -> None:
    plain = saved("AVIF", **options)
    assert codes_of(stream_of_main(plain)) == Nclx(1, 13, 6, True)
    picture = read_picture(without_colour_box(plain, 12, 13))
    assert np.abs(as_srgb(picture) - shown(FROM_P3, srgb_to_linear)).max() < 6
    with pytest.raises(ImageError, match="HDR"):
        probe_picture(without_colour_box(plain, 9, 16))
    stream = stream_of_main(plain)
    for end in range(len(stream)):
        codes_of(stream[:end])  # whatever is missing, nothing is raised
    for end in range(0, 400, 3):
        stream_of_main(plain[:end])


def test_a_sequence_header_of_a_video() -> None:
    """Not reduced: timing, a decoder model, two operating points, frame numbers, every tool."""
    fields = [(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (25, 32), (1, 1), (0b00110, 5)]  # uvlc: 2 zeros, 1, 2 bits
    fields += [(1, 1), (9, 5), (1, 32), (7, 5), (7, 5), (1, 1), (1, 5)]
    for level in (5, 8):
        fields += [(0, 12), (level, 5), *([(0, 1)] if level > 7 else []), (1, 1), (0, 21), (1, 1), (3, 4)]
    fields += [(9, 4), (8, 4), (999, 10), (499, 9), (1, 1), (2, 4), (1, 3), (0, 3)]
    fields += [(15, 4), (1, 1), (3, 2), (0, 1), (1, 1), (0, 1), (1, 1), (6, 3), (7, 3), (1, 1), (0, 1), (1, 1)]
    fields += [(12, 8), (13, 8), (6, 8)]
    bits = "".join(f"{value:0{count}b}" for value, count in fields)
    header = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    assert codes_of(b"\x12\0\x0a" + bytes([len(header)]) + header) == Nclx(12, 13, 6, True)
    assert codes_of(b"\x08" + header) == Nclx(12, 13, 6, True)  # a unit without its size


@needs_avif
def test_properties_belong_to_the_main_picture() -> None:
    properties = properties_of_main(avif(12, 13))
    assert {box.kind for box in properties} >= {b"ispe", b"av1C", b"colr"}
    nclx = nclx_of(properties)
    assert nclx is not None
    assert (nclx.primaries, nclx.transfer, nclx.full_range) == (12, 13, True)
    assert bits_of(properties) == 8


def full_box(kind: bytes, content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, flags]) + content)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L4s", len(content) + 8, kind) + content


def test_tiles_speak_for_the_grid_and_helpers_do_not() -> None:
    """Item 2 is a grid of items 3 and 4; item 1, which comes first, is something else."""
    nclx = [box(b"colr", b"nclx" + struct.pack(">3HB", value, 13, 6, 0x80)) for value in (9, 12)]
    pool = box(b"ipco", nclx[0] + box(b"ispe", bytes(12)) + full_box(b"pixi", bytes([3, 10, 10, 10])) + nclx[1])
    owned = struct.pack(">L", 3) + b"".join(
        struct.pack(">LB", item, len(places)) + struct.pack(f">{len(places)}H", *(0x8000 | place for place in places))
        for item, places in ((1, (1,)), (2, (2, 3)), (3, (4,)))
    )
    content = full_box(b"pitm", struct.pack(">L", 2), version=1)
    content += box(b"iprp", pool + full_box(b"ipma", owned, version=1, flags=1))
    content += full_box(b"iref", box(b"dimg", struct.pack(">HH2H", 2, 2, 3, 4)))
    data = box(b"ftyp", b"avif") + full_box(b"meta", content)
    properties = properties_of_main(data)
    found = nclx_of(properties)
    assert found is not None
    assert found.primaries == 12
    assert bits_of(properties) == 10
    for end in range(len(data)):
        properties_of_main(data[:end])  # whatever is missing, nothing is raised


def test_chunks_end_where_the_file_does() -> None:
    data = png(gama(1.0))
    assert [name for name, _ in chunks(data)] == [b"IHDR", b"gAMA", b"IDAT"]
    damaged = data.replace(b"gAMA\0", b"gAMA\1")
    assert [name for name, _ in chunks(damaged)] == [b"IHDR", b"IDAT"]
    assert list(chunks(b"no picture")) == []
