"""What is of one colour stays so, edges stay the net's, and nothing else changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dreamsr.core.pixels import Pixels, to_tensor
from dreamsr.upscaling.flat import FAR_PX, GRAIN_LEVELS, evenness, flattened, is_flat
from dreamsr.upscaling.settings import Progress, Settings
from dreamsr.upscaling.upscaler import Upscaler


def two_halves(dtype: type = np.uint8) -> Pixels:
    picture = np.full((20, 24, 3), np.iinfo(dtype).max // 5, dtype)
    picture[:, 12:] = np.iinfo(dtype).max // 2
    return picture


def png_bytes(pixels: Pixels) -> int:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return len(file.getvalue())


def test_evenness_counts_pixels_to_the_next_other_colour() -> None:
    row = [FAR_PX] * 8 + [3, 2, 1, 0]
    assert (evenness(two_halves()) == [*row, *reversed(row)]).all()


def test_one_other_pixel_ends_evenness_all_around_it() -> None:
    picture = np.full((21, 21, 1), 9, np.uint16)
    picture[10, 10] = 10
    even = evenness(picture)
    assert even[10, 10] == even[10, 11] == even[9, 10] == 0
    assert even[10, 12] == even[8, 8] == even[12, 9] == 1
    assert even[10, 13] == even[7, 7] == 2
    assert (even[0] == FAR_PX).all()
    assert not is_flat(even)
    assert is_flat(even[:6])


def test_a_part_is_judged_with_what_is_around_it() -> None:
    picture = np.random.default_rng(0).integers(0, 2, (30, 40, 1), dtype=np.uint8).repeat(7, axis=0).repeat(7, axis=1)
    whole = evenness(picture)
    for rows, columns in ((slice(3, 60), slice(0, 33)), (slice(100, 210), slice(250, 280)), (slice(5), slice(7, None))):
        assert (evenness(picture, rows, columns) == whole[rows, columns]).all()


def test_noise_is_nowhere_even_and_passes_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture[::2] //= 2
    even = evenness(picture)
    assert not even.any()
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert flattened(image, to_tensor(picture), even) is image


@pytest.mark.parametrize("scale", [2, 4])
def test_grain_goes_and_edges_stay(scale: int) -> None:
    low = two_halves()
    image = to_tensor(low.repeat(scale, axis=0).repeat(scale, axis=1))
    level = 2 / 255
    grain = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * level
    edge = torch.zeros_like(image)
    edge[..., 11 * scale : 13 * scale] = 40 * level  # as a net sharpens it
    result = flattened(image + grain + edge, to_tensor(low), evenness(low))
    beside = slice(11 * scale, 13 * scale)
    torch.testing.assert_close(result[..., beside], (image + grain + edge)[..., beside], rtol=0, atol=2 * level)
    torch.testing.assert_close(result[..., : 9 * scale], image[..., : 9 * scale], rtol=0, atol=1e-6)
    torch.testing.assert_close(result[..., -9 * scale :], image[..., -9 * scale :], rtol=0, atol=1e-6)


def test_more_goes_the_farther_the_edge_is() -> None:
    assert list(GRAIN_LEVELS) == sorted(set(GRAIN_LEVELS))
    assert GRAIN_LEVELS[0] == 0
    assert GRAIN_LEVELS[-1] == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_halves_are_exact_in_every_depth(tiny_upscaler: Upscaler, dtype: type) -> None:
    small = two_halves(dtype)
    result = tiny_upscaler.enlarge(small, 80, 96, Settings(steps=1))
    assert (result[:, :30] == small[0, 0]).all()
    assert (result[:, -30:] == small[0, -1]).all()


def test_flat_tiles_need_no_net(tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as with it, and progress to the end all the same."""
    small = np.full((80, 240, 3), 33, np.uint8)
    small[20:60, 20:60] = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    settings, heard = Settings(steps=2, tile_px=80), list[Progress]()
    quick = tiny_upscaler.enlarge(small, 320, 960, settings, on_progress=heard.append)
    assert heard[-1].fraction == 1
    monkeypatch.setattr("dreamsr.upscaling.tiled.is_flat", lambda _even: False)
    assert (quick == tiny_upscaler.enlarge(small, 320, 960, settings)).all()

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("the net was asked")

    monkeypatch.undo()
    monkeypatch.setattr(tiny_upscaler.nets.largest.denoiser, "condition", never)
    assert (tiny_upscaler.enlarge(small[:, 80:], 320, 640, settings) == 33).all()


def test_drawings_stay_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing of few colours, by the bundled weights: less than half of what their grain costs."""
    small = np.full((64, 80, 3), (250, 240, 220), np.uint8)
    y, x = np.mgrid[0:64, 0:80]
    small[np.hypot(y - 26, x - 26) < 16] = (40, 80, 160)
    small[40:56, 44:70] = (200, 40, 60)
    upscaler = Upscaler("photo-x4", "cpu")
    quiet = upscaler.enlarge(small, 256, 320, Settings(steps=1))
    monkeypatch.setattr("dreamsr.upscaling.tiled.flattened", lambda image, _low, _even: image)
    grainy = upscaler.enlarge(small, 256, 320, Settings(steps=1))
    assert png_bytes(quiet) < png_bytes(grainy) / 2
    assert np.abs(quiet.astype(int) - grainy).mean() < 1
