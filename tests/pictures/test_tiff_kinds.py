"""Every kind of TIFF is read rightly or refused by name: sizes, depths, channels, byte orders, planes, pages."""

import io
import itertools
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from dreamsr.errors import ImageError
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture

H, W = 24, 40
CHANNELS = {"minisblack": 1, "miniswhite": 1, "grey+alpha": 2, "rgb": 3, "rgba": 4, "rgb+associated": 4, "rgb+other": 4,
            "cmyk": 4}  # fmt: skip
EXTRA = {"grey+alpha": ["unassalpha"], "rgba": ["unassalpha"], "rgb+associated": ["assocalpha"], "rgb+other": [0]}
LAYOUTS = [
    {"planarconfig": planar, "tile": tile, "rowsperstrip": rows, "compression": packed, "predictor": packed is not None}
    for planar in ("contig", "separate")
    for tile, rows in (((16, 16), None), (None, 7), (None, H))
    for packed in (None, "deflate")
]


def samples_of(kind: str, dtype: str) -> np.ndarray:
    """[H,W,C] that use the whole range, other values in every channel; colours at most alpha where multiplied."""
    draw = np.random.default_rng(7)
    kind_of = np.dtype(dtype)
    channels = CHANNELS[kind]
    values = draw.integers(0, 256, (H, W, channels)) / 255
    if kind == "rgb+associated":
        values[..., 3] = 1
    if kind_of.kind == "f":
        return values.astype(kind_of)
    limits = np.iinfo(kind_of)
    return np.rint(limits.min + values * (float(limits.max) - limits.min)).clip(limits.min, limits.max).astype(kind_of)


def written(samples: np.ndarray, kind: str, order: str, planarconfig: str, **layout: object) -> bytes:
    file = io.BytesIO()
    data = np.moveaxis(samples, 2, 0) if planarconfig == "separate" else samples
    if samples.shape[2] == 1:
        data, planarconfig = samples[..., 0], "contig"
    photometric = {"grey+alpha": "minisblack", "cmyk": "separated"}.get(kind, kind[:3] if kind[:3] == "rgb" else kind)
    if layout.get("predictor") and samples.dtype.kind == "f":
        layout["predictor"] = False
    tifffile.imwrite(
        file, data, byteorder=order, photometric=photometric, extrasamples=EXTRA.get(kind), metadata=None,
        planarconfig=planarconfig if samples.shape[2] > 1 else None, **layout,
    )  # fmt: skip
    return file.getvalue()


def expected(samples: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    if kind == "miniswhite":
        return np.iinfo(samples.dtype).max - samples, None
    if kind == "cmyk":
        ink = samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)
        return np.asarray(Image.frombytes("CMYK", (W, H), ink.tobytes()).convert("RGB")), None
    if kind == "rgb+other":
        return samples[..., :3], None
    return (samples[..., :-1], samples[..., -1]) if kind in EXTRA else (samples, None)


def is_refused(kind: str, dtype: str, order: str, layout: dict) -> bool:
    """The unsigned kinds of 8 and 16 bits that Pillow does not open."""
    if kind == "rgb+other":
        return layout["planarconfig"] == "separate" and dtype == "uint8" and layout["compression"] is None
    return dtype == "uint16" and (kind == "grey+alpha" or (kind == "miniswhite" and order == ">"))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", CHANNELS)
def test_unsigned_kinds_are_exact(kind: str, dtype: str, order: str) -> None:
    samples = samples_of(kind, dtype)
    pixels, alpha = expected(samples, kind)
    for layout in LAYOUTS:
        data = written(samples, kind, order, **layout)
        if is_refused(kind, dtype, order, layout):
            with pytest.raises(
                ImageError, match=r"TIFF with \d channels of \d+ bits in an arrangement that is not read"
            ):
                read_picture(data)
            continue
        picture = read_picture(data)
        if kind != "cmyk":
            assert probe_picture(data).depth_bits == picture.depth_bits
        np.testing.assert_array_equal(picture.pixels, pixels, err_msg=str(layout))
        if alpha is None:
            assert picture.alpha is None
        else:
            np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float16", "float32", "float64", "uint32", "int32"])
@pytest.mark.parametrize("kind", CHANNELS)
def test_other_samples_are_refused_by_name(kind: str, dtype: str) -> None:
    samples = samples_of(kind, dtype)
    name = {"i": "signed|32", "f": "floating-point", "u": "bit"}[np.dtype(dtype).kind]
    for order, layout in itertools.product("<>", LAYOUTS[::3]):
        with pytest.raises(ImageError, match=name) as caught:
            read_picture(written(samples, kind, order, **layout))
        assert "damaged" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_few_bits(bits: int) -> None:
    """Grey of fewer bits than a byte, packed by hand."""
    values = np.random.default_rng(1).integers(0, 2**bits, (H, W))
    packed = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(H, -1), axis=1)
    data = bytearray(written(packed[..., None], "minisblack", "<", "contig", rowsperstrip=H, compression=None))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages[0].tags
        for tag, value in (("ImageWidth", W), ("BitsPerSample", bits)):
            at = tags[tag].valueoffset
            data[at : at + 2] = value.to_bytes(2, "little")
    full = values * 255 // (2**bits - 1) if bits < 8 else values << 4 | values >> 8
    np.testing.assert_array_equal(read_picture(bytes(data)).pixels[..., 0], full)


def pages(*subfiles: int, small: int = 2) -> bytes:
    """A file whose pages have those subfile types; reduced ones are smaller and of another kind."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for subfile in subfiles:
            picture = samples_of("rgb", "uint8")
            data = picture[::small, ::small].astype(np.float32) if subfile & 1 else picture
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                writer.write(data, photometric="rgb", subfiletype=subfile, metadata=None)
    return file.getvalue()


@pytest.mark.parametrize("subfiles", [(0, 1), (0, 1, 1), (1, 0), (1, 0, 1)])
def test_the_main_page_is_the_picture(subfiles: tuple[int, ...], tmp_path) -> None:
    data = pages(*subfiles)
    np.testing.assert_array_equal(read_picture(data).pixels, samples_of("rgb", "uint8"))
    assert (probe_picture(data).width, probe_picture(data).height) == (W, H)
    path = tmp_path / "with_thumbnail.tif"
    path.write_bytes(data)
    assert is_complete_picture(path)


@pytest.mark.parametrize(("subfiles", "what"), [((0, 0), "2 pages"), ((0, 1, 2), "2 pages"), ((1, 1), "camera raw")])
def test_several_or_no_main_pages(subfiles: tuple[int, ...], what: str) -> None:
    with pytest.raises(ImageError, match=what):
        read_picture(pages(*subfiles))
