"""Colour under transparency comes from what is visible near it."""

from __future__ import annotations

import numpy as np
import pytest

from dreamsr.pictures.bleed import bleed, enlarged_alpha


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 2), (5, 7), (64, 64), (33, 100)])
def test_a_flat_visible_colour_fills_everything(shape: tuple[int, int], dtype: type) -> None:
    alpha = np.zeros(shape, dtype)
    alpha[0, 0] = 200
    pixels = np.random.default_rng(0).integers(0, 200, (*shape, 3)).astype(dtype)
    pixels[0, 0] = (10, 20, 30)
    filled = bleed(pixels, alpha)
    assert (filled == np.array([10, 20, 30])).all()
    assert filled.dtype == dtype


def test_visible_pixels_are_untouched_and_the_input_too() -> None:
    rng = np.random.default_rng(1)
    pixels, alpha = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 2, (40, 50), np.uint8) * 255
    before = pixels.copy()
    filled = bleed(pixels, alpha)
    assert (filled[alpha > 0] == pixels[alpha > 0]).all()
    assert (pixels == before).all()


def test_holes_take_the_colour_of_their_side() -> None:
    pixels, alpha = np.zeros((32, 64, 1), np.uint8), np.zeros((32, 64), np.uint8)
    pixels[:, :8], pixels[:, -8:] = 250, 50
    alpha[:, :8] = alpha[:, -8:] = 255
    filled = bleed(pixels, alpha)
    assert filled[16, 12, 0] > 200
    assert filled[16, 52, 0] < 100


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_to_do_returns_the_same_pixels(value: int) -> None:
    pixels = np.ones((4, 4, 3), np.uint8)
    assert bleed(pixels, np.full((4, 4), value, np.uint8)) is pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_faint_pixels_beside_opaque_ones_take_their_colour(dtype: type) -> None:
    full = np.iinfo(dtype).max
    pixels, alpha = np.full((20, 40, 3), full, dtype), np.full((20, 40), full // 32, dtype)
    pixels[:, :20], alpha[:, :20] = (full * 3 // 4, 0, 0), full
    filled = bleed(pixels, alpha)
    assert (filled[:, :20] == pixels[:, :20]).all()
    assert (filled[:, 20, 1] < full // 5).all()  # white before
    assert (filled[:, 22:] == full).all()  # out of reach: a veil keeps its colour


def test_an_even_veil_keeps_its_colours_and_a_soft_edge_its_own() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (30, 30, 3), np.uint8)
    veil = np.full((30, 30), 40, np.uint8)
    veil[:5] = 0
    assert (bleed(pixels, veil)[5:] == pixels[5:]).all()
    flat = np.full((30, 30, 3), 90, np.uint8)
    slope = np.broadcast_to(np.arange(30, dtype=np.uint8) * 8, (30, 30))
    assert (bleed(flat, slope) == 90).all()


def test_hidden_pixels_take_more_from_what_shows_more() -> None:
    pixels, alpha = np.zeros((2, 4, 1), np.uint8), np.zeros((2, 4), np.uint8)
    pixels[0, 0], alpha[0, 0] = 200, 250
    pixels[1, 1], alpha[1, 1] = 0, 5
    assert bleed(pixels, alpha)[1, 0, 0] > 190


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(192, 192), (110, 173), (49, 48), (48, 48)])
def test_alpha_does_not_ring(dtype: type, size: tuple[int, int]) -> None:
    full = np.iinfo(dtype).max
    alpha = np.full((48, 48), full // 32, dtype)
    alpha[12:36, 12:36] = full
    alpha[20:24, 20:24] = 0
    large = enlarged_alpha(alpha, *size)
    assert (large.shape, large.dtype) == (size, dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = int((y + 0.5) * 48 / size[0]), int((x + 0.5) * 48 / size[1])
            around = alpha[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert around.min() <= large[y, x] <= around.max(), (y, x)
    assert {0, full // 32, full} <= set(large.ravel().tolist())
