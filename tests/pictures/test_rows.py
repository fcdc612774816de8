"""Files written row by row: whatever pieces rows come in, the file is one and the same, and holds what was given."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamsr.errors import OutputError
from dreamsr.pictures.picture import Array, Metadata, Picture, PrintSize
from dreamsr.pictures.png import chunks
from dreamsr.pictures.read import is_complete_picture, read_picture
from dreamsr.pictures.rows import JPEG_BLOCK_ROWS, Blocks, filtered
from dreamsr.pictures.write import PictureEncoder, encode_picture

METADATA = Metadata(texts=((b"tEXt", b"Title\0Rows"),), comments=(b"by rows",), print_size=PrintSize(2.0, 3.0))


def drawn(height: int, width: int, channels: int, dtype: type) -> Array:
    """A photograph above, a drawing below."""
    draw = np.random.default_rng(height * width + channels)
    peak = np.iinfo(dtype).max
    waves = np.sin(np.arange(height)[:, None, None] / 9) + np.cos(np.arange(width)[None, :, None] / 7 + channels)
    values = (waves + 2) / 4 * peak * 0.9 + draw.random((height, width, channels)) * peak / 50
    result = values.astype(dtype)
    result[height // 2 :, width // 3 :] = peak // 3
    return result


def pieces(picture: Picture, heights: list[int]) -> Iterator[Picture]:
    ends = [0, *itertools.accumulate(heights), picture.height]
    for top, end in itertools.pairwise(ends):
        if end > top:
            alpha = None if picture.alpha is None else picture.alpha[top:end]
            yield Picture(picture.pixels[top:end], alpha, picture.metadata)


def in_pieces(picture: Picture, heights: list[int], format: str) -> bytes:
    like = next(pieces(picture, [1]))
    encoder = PictureEncoder(like, picture.height, picture.width, format=format)
    for piece in pieces(picture, heights):
        encoder.add(piece)
    return encoder.finish()


@pytest.mark.parametrize("heights", [[], [1] * 60, [70, 3, 180], [256], [255, 2]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP", "BMP"])
def test_pieces_give_the_same_file(format: str, channels: int, heights: list[int]) -> None:
    picture = Picture(drawn(300, 41, channels, np.uint8), metadata=METADATA)
    whole = encode_picture(picture, format=format)
    again = read_picture(in_pieces(picture, heights, format))
    expected = read_picture(whole)
    assert (again.pixels == expected.pixels).all()
    assert again.metadata == expected.metadata
    if format in ("PNG", "TIFF"):
        assert (again.pixels == picture.pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_every_depth_and_kind(format: str, has_alpha: bool, channels: int, dtype: type) -> None:
    alpha = drawn(50, 33, 1, dtype)[..., 0] if has_alpha else None
    picture = Picture(drawn(50, 33, channels, dtype), alpha, METADATA)
    again = read_picture(in_pieces(picture, [7, 20], format))
    same = again.pixels if again.pixels.shape[2] == channels else again.pixels[..., :1]
    assert (same == picture.pixels).all()
    assert (again.alpha is None) == (alpha is None)
    assert alpha is None or (again.alpha == alpha).all()
    assert again.metadata.print_size is not None
    assert again.metadata.print_size.height == pytest.approx(3.0, rel=0.01)


def test_jpeg_is_what_it_is_at_once() -> None:
    pixels = drawn(2 * JPEG_BLOCK_ROWS + 21, 90, 3, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    data = encode_picture(Picture(pixels), format="JPEG")
    with Image.open(file) as at_once, Image.open(io.BytesIO(data)) as by_rows:
        assert (np.asarray(at_once) == np.asarray(by_rows)).all()
    assert len(data) < 1.03 * len(file.getvalue())
    assert data.count(b"\xff\xda") == data.count(b"\xff\xc0") == 1


def test_a_cut_jpeg_is_not_complete(tmp_path: Path) -> None:
    data = encode_picture(Picture(drawn(600, 40, 3, np.uint8)), format="JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    assert is_complete_picture(path)
    for end in (-1, -2, -3, len(data) // 2):
        path.write_bytes(data[:end])
        assert not is_complete_picture(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_no_larger_than_pillow_s(channels: int) -> None:
    pixels = drawn(200, 300, channels, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(file, "PNG")
    assert len(encode_picture(Picture(pixels), format="PNG")) < 1.05 * len(file.getvalue())


def test_png_chunks_stand_before_the_pixels_and_are_sound() -> None:
    data = encode_picture(Picture(drawn(40, 40, 3, np.uint8), metadata=METADATA), format="PNG")
    names = [name for name, _ in chunks(data)]
    assert names[:2] == [b"IHDR", b"pHYs"]
    assert names.index(b"tEXt") < names.index(b"IDAT")


@given(
    lines=st.integers(1, 12),
    pixels=st.integers(1, 9),
    pixel_bytes=st.sampled_from([1, 2, 3, 6, 8]),
    seed=st.integers(0),
)
@settings(max_examples=100, deadline=None)
def test_filters_are_undone_by_the_standard_s_words(lines: int, pixels: int, pixel_bytes: int, seed: int) -> None:
    """PNG, third edition, 9.2: a decoder written from the text, byte by byte."""
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, draw.integers(2, 256, endpoint=True), (lines + 1, pixels * pixel_bytes), dtype=np.uint8)
    coded = np.frombuffer(filtered(rows[1:], rows[:1], pixel_bytes), np.uint8).reshape(lines, -1)
    above = rows[0].tolist()
    for line, expected in zip(coded, rows[1:], strict=True):
        kind, *values = (int(value) for value in line)
        done: list[int] = []
        for i, value in enumerate(values):
            a = done[i - pixel_bytes] if i >= pixel_bytes else 0
            b = above[i]
            c = above[i - pixel_bytes] if i >= pixel_bytes else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            done.append((value + [0, a, b, (a + b) // 2, nearest][kind]) % 256)
        assert done == expected.tolist()
        above = done


@given(heights=st.lists(st.integers(1, 9), min_size=1, max_size=12), height=st.integers(1, 10))
def test_blocks_are_even_and_whole(heights: list[int], height: int) -> None:
    rows = np.arange(sum(heights))[:, None, None]
    blocks, found, top = Blocks(height), list[Array](), 0
    for count in heights:
        found += blocks.add(rows[top : top + count])
        top += count
    assert all(len(block) == height for block in found)
    found += blocks.rest()
    assert (np.concatenate(found) == rows).all()


def test_transparency_is_refused_in_the_rows_where_it_comes() -> None:
    opaque, clear = (Picture(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), value, np.uint8)) for value in (255, 0))
    encoder = PictureEncoder(opaque, 8, 4, format="JPEG")
    encoder.add(opaque)
    with pytest.raises(OutputError, match="transparency"):
        encoder.add(clear)
