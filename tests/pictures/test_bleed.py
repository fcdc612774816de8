"""Colour under transparency comes from what is visible near it."""

from __future__ import annotations

import numpy as np
import pytest

from dreamsr.pictures.bleed import bleed


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
