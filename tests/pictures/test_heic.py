"""HEIC, which phones make: read upright, in its colours and depth; told how to read it where nothing can."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr.errors import ImageError, OutputError
from dreamsr.pictures import opening
from dreamsr.pictures.colours.icc import to_srgb
from dreamsr.pictures.losses import not_written
from dreamsr.pictures.picture import FORMATS, Metadata, format_for
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.write import encode_picture, write_picture
from tests.pictures.test_colour import CODES, FROM_2020, FROM_P3, shown, srgb_to_linear

needs_heic = pytest.mark.skipif("HEIC" not in FORMATS, reason="without the extra heic")


def heic(image: Image.Image, **options: object) -> bytes:
    from dreamsr.pictures.heic import register

    register()
    file = io.BytesIO()
    image.save(file, "HEIF", quality=95, subsampling="4:4:4", **options)
    return file.getvalue()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "FORMATS", {name: ends for name, ends in FORMATS.items() if name != "HEIC"})
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(bytes(3) + b"\x18ftypheic" + bytes(60))
    for look in (read_picture, probe_picture):
        with pytest.raises(ImageError, match=r'HEIC picture.*pip install "dreamsr\[heic\]"') as caught:
            look(path)
        assert "\n" not in str(caught.value)


def test_the_extra_is_named_for_results_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORMATS, "HEIC", raising=False)
    with pytest.raises(OutputError, match=r'or for HEIC pip install "dreamsr\[heic\]"'):
        format_for("a.HEIC")
    with pytest.raises(OutputError, match=r"\.bmp[^H]*$"):
        format_for("a.gif")


@needs_heic
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (17, 13), (64, 33)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_read_and_written(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    value: object = 90 if mode == "L" else (*CODES, 128)[: len(mode)]
    picture = read_picture(heic(Image.new(mode, size, value)))
    assert (picture.width, picture.height, picture.format, picture.notes) == (*size, "HEIC", ())
    path = tmp_path / "a.heic"
    write_picture(path, picture)
    again = read_picture(path)
    info = probe_picture(path)
    assert (info.format, info.width, info.height, info.depth_bits) == ("HEIC", *size, 8)
    assert is_complete_picture(path)
    assert again.is_grey == (mode == "L")
    expected = 90 if mode == "L" else CODES
    assert np.abs(again.pixels.astype(int) - expected).max() <= 3
    assert (again.alpha is not None) == (mode == "RGBA")
    if again.alpha is not None:
        assert np.abs(again.alpha.astype(int) - 128).max() <= 2


@needs_heic
@pytest.mark.parametrize(("primaries", "matrix"), [(12, FROM_P3), (9, FROM_2020)])
def test_colours_by_code_points(primaries: int, matrix: object) -> None:
    data = heic(Image.new("RGB", (16, 16), CODES), color_primaries=primaries, transfer_characteristics=13)
    picture = read_picture(data)
    assert picture.metadata.icc is not None
    expected = shown(matrix, srgb_to_linear)
    assert np.abs(to_srgb(picture.pixels, picture.metadata.icc)[8, 8] - expected).max() < 3
    plain = read_picture(encode_picture(picture, format="HEIC", strip=True))
    assert plain.metadata == Metadata()
    assert np.abs(plain.pixels[8, 8] - expected).max() < 3


@needs_heic
def test_hdr_is_refused() -> None:
    data = heic(Image.new("RGB", (16, 16), CODES), color_primaries=9, transfer_characteristics=16)
    for look in (read_picture, probe_picture):
        with pytest.raises(ImageError, match=r"HDR picture \(PQ\)"):
            look(data)


@needs_heic
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_ten_bits_are_read_at_their_depth(mode: str) -> None:
    import pillow_heif

    channels = len(mode)
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64, 1).repeat(channels, axis=2).astype("<u2")
    file = io.BytesIO()
    pillow_heif.from_bytes(mode=f"{mode};16", size=(64, 48), data=ramp.tobytes()).save(file, quality=-1, chroma=444)
    data = file.getvalue()
    picture = read_picture(data)
    assert probe_picture(data).depth_bits == picture.depth_bits == 16
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 65535)
    assert np.abs(picture.pixels[..., :1].astype(int) - ramp[..., :1]).max() < 200  # 3 of 1024 steps
    assert len(np.unique(picture.pixels[..., 0])) > 900
    assert (picture.alpha is not None) == (mode == "RGBA")
    assert not_written(picture, "HEIC") == ("16 bit became 8 bit, which is all that HEIC holds",)


@needs_heic
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once(orientation: int) -> None:
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = 255  # bright at the upper left as stored
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHLHHL", 274, 3, 1, orientation, 0, 0)
    picture = read_picture(heic(Image.fromarray(stored), exif=exif))
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    upright = read_picture(file.getvalue()).pixels
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).mean() < 3
    assert probe_picture(heic(Image.fromarray(stored), exif=exif)).width == upright.shape[1]


@needs_heic
def test_further_pictures_are_noted() -> None:
    first, second = Image.new("RGB", (16, 16), CODES), Image.new("RGB", (20, 20), "white")
    picture = read_picture(heic(first, save_all=True, append_images=[second], primary_index=0))
    assert (picture.width, picture.height) == (16, 16)
    assert picture.notes == ("what else the file holds (more pictures, a depth or gain map) was left out",)


@needs_heic
def test_damaged_files_are_refused() -> None:
    data = heic(Image.effect_noise((64, 64), 50).convert("RGB"))
    for end in (len(data) // 2, len(data) - 100, 60):
        with pytest.raises(ImageError):
            read_picture(data[:end])
