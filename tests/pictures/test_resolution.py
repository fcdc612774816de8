"""The printed size of an enlarged picture stays what it was, and the shape of its pixels too."""

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from dreamsr.pictures.picture import FORMATS, Picture, PrintSize
from dreamsr.pictures.read import from_pil, read_picture
from dreamsr.pictures.write import encode_picture, to_pil

W, H = 96, 60
PIXELS = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def saved(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format, **options)
    return file.getvalue()


def enlarged(picture: Picture, scale: int = 4, dtype: type = np.uint8) -> Picture:
    """As the upscaler hands it on: other pixels, the same metadata."""
    return replace(picture, pixels=picture.pixels.repeat(scale, 0).repeat(scale, 1).astype(dtype), alpha=None)


@pytest.mark.parametrize("target", [name for name in FORMATS if name != "HEIC"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "BMP"])
def test_the_printed_size_stays(source: str, target: str) -> None:
    picture = read_picture(saved(source, dpi=(300, 150)))
    assert picture.metadata.print_size == pytest.approx((0.32, 0.4, True), rel=1e-3)
    again = read_picture(encode_picture(enlarged(picture), format=target))
    assert again.metadata.print_size == pytest.approx((0.32, 0.4, True), rel=1e-3)
    assert again.width == 4 * W


def test_other_readers_see_it() -> None:
    picture = enlarged(read_picture(saved("PNG", dpi=(300, 150))))
    for format in ("PNG", "JPEG", "BMP", "TIFF"):
        with Image.open(io.BytesIO(encode_picture(picture, format=format))) as image:
            assert image.info["dpi"] == pytest.approx((1200, 600), rel=1e-3)
    with tifffile.TiffFile(io.BytesIO(encode_picture(picture, format="TIFF"))) as file:
        assert file.pages[0].tags["XResolution"].value[0] / file.pages[0].tags["XResolution"].value[1] == pytest.approx(
            1200, rel=1e-3
        )
        assert file.pages[0].tags["ResolutionUnit"].value == 2


def test_16_bit_pngs_state_it_too() -> None:
    picture = enlarged(read_picture(saved("PNG", dpi=(300, 300))), dtype=np.uint16)
    again = read_picture(encode_picture(picture, format="PNG"))
    assert again.depth_bits == 16
    assert again.metadata.print_size == pytest.approx((0.32, 0.2, True), rel=1e-3)


def test_centimetres() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", resolution=(100, 100), resolutionunit=3)
    assert read_picture(file.getvalue()).metadata.print_size == pytest.approx((W / 254, H / 254, True))


@pytest.mark.parametrize("target", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_shape_of_pixels_without_a_unit(target: str) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", resolution=(204, 98), resolutionunit=1)
    picture = enlarged(read_picture(file.getvalue()))
    size = read_picture(encode_picture(picture, format=target)).metadata.print_size
    assert size is not None
    assert not size.is_inch
    assert size.width / size.height == pytest.approx((W / 204) / (H / 98), rel=1e-4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_pictures_turn_their_resolution(orientation: int) -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[283], exif[296] = orientation, 300.0, 150.0, 2
    for format in ("TIFF", "WEBP"):  # of which the latter has EXIF alone
        picture = read_picture(saved(format, exif=exif, **({"dpi": (300, 150)} if format == "TIFF" else {})))
        size = (0.32, 0.4) if orientation in (1, 3) else (0.4, 0.32)
        assert picture.metadata.print_size == pytest.approx((*size, True))
        assert (picture.width > picture.height) == (orientation in (1, 3))


def test_exif_says_the_same_as_the_file() -> None:
    exif = Image.Exif()
    exif[282], exif[283], exif[296], exif[271] = 300.0, 300.0, 2, "Maker"
    for target in ("JPEG", "PNG", "WEBP", "TIFF"):
        picture = enlarged(read_picture(saved("JPEG", exif=exif, dpi=(300, 300))))
        with Image.open(io.BytesIO(encode_picture(picture, format=target))) as image:
            found = image.getexif()
            assert (float(found[282]), float(found[283]), found[296], found[271]) == (1200, 1200, 2, "Maker")


@pytest.mark.parametrize("format", list(FORMATS))
def test_nothing_is_made_up(format: str) -> None:
    plain = Picture(PIXELS)
    assert read_picture(encode_picture(plain, format=format)).metadata.print_size is None
    with_size = replace(plain, metadata=replace(plain.metadata, print_size=PrintSize(0.32, 0.2)))
    data = encode_picture(with_size, format=format, strip=True)
    assert read_picture(data).metadata.print_size is None


def test_absurd_resolutions_are_not_carried() -> None:
    for bad in ((0, 300), (2**31, 1)):
        file = io.BytesIO()
        tifffile.imwrite(file, PIXELS, photometric="rgb", resolution=bad, resolutionunit=2)
        assert read_picture(file.getvalue()).metadata.print_size is None


def test_pillow_images_carry_it() -> None:
    with Image.open(io.BytesIO(saved("PNG", dpi=(300, 300)))) as image:
        picture = from_pil(image)
    assert to_pil(enlarged(picture)).info["dpi"] == pytest.approx((1200, 1200), rel=1e-3)
