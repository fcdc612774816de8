import numpy as np
import pytest
import torch

from dreamsr.core import resize
from dreamsr.data.window import cut_large, cut_pair, shrunk_size, shrunk_window
from dreamsr.measure import metrics
from tests.data.drawn_photos import noise

SIZES = [(48, 48), (61, 83), (150, 67)]


def whole(photo, factor):
    height, width = shrunk_size(photo, factor)
    return shrunk_window(photo, factor, top=0, left=0, height=height, width=width)


def whole_pair(photo, factor, scale):
    """The way that needs the whole photo: shrink, cut to a multiple of the scale, shrink again."""
    large = whole(photo, factor)
    height, width = (n // scale * scale for n in large.shape[:2])
    large = large[:height, :width]
    return whole(large, scale), large


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_a_whole_photo_is_shrunk_as_matlab_does_with_halves_up(size, factor):
    """After the rows, and again after the columns."""
    photo = noise(*size)
    down, across = (resize.resize_matrix(n, -(-n // factor), 1 / factor) for n in size)
    tall = halves_up(down @ torch.from_numpy(photo).permute(2, 0, 1).double())
    expected = halves_up(tall @ across.mT).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(whole(photo, factor), expected)


def halves_up(values):
    return (values.clamp(0, 255) + 0.5 + 1e-9).floor()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_training_and_the_benchmark_way_to_shrink_agree_but_for_ties(factor):
    photo = noise(96, 120)
    other = metrics.as_pixels(resize.shrink_8_bit(metrics.planes(photo), factor)).astype(int)
    difference = np.abs(whole(photo, factor) - other)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_every_crop_is_that_of_the_whole_photo_bit_for_bit(size, factor, scale):
    photo = noise(*size)
    low, large = whole_pair(photo, factor, scale)
    side = min(5, *low.shape[:2])
    bottom, right = low.shape[0] - side, low.shape[1] - side
    places = {(0, 0), (0, right), (bottom, 0), (bottom, right), (min(1, bottom), right // 2), (bottom // 2, right // 3)}
    for top, left in places:
        crop_low, crop_large = cut_pair(photo, factor=factor, scale=scale, top=top, left=left, side=side)
        np.testing.assert_array_equal(crop_low, low[top : top + side, left : left + side])
        rows, columns = slice(scale * top, scale * (top + side)), slice(scale * left, scale * (left + side))
        np.testing.assert_array_equal(crop_large, large[rows, columns])


def test_a_window_does_not_depend_on_its_neighbourhood():
    """On flat and stepped pictures many sums end on a half, where a sum in another order rounds the other way."""
    draw = np.random.default_rng(0)
    photo = draw.choice(np.array([0, 1, 2, 255], np.uint8), (90, 90, 3))
    for factor in (2, 3, 6):
        full = whole(photo, factor)
        for top in range(0, full.shape[0] - 4, 3):
            part = shrunk_window(photo, factor, top=top, left=2, height=4, width=6)
            np.testing.assert_array_equal(part, full[top : top + 4, 2:8])


def test_the_margin_ends_where_the_photo_ends():
    photo = noise(64, 64)
    large, before = cut_large(photo, factor=1, scale=4, top=1, left=7, side=8, margin=(3, 5))
    assert before == (1, 5)
    np.testing.assert_array_equal(large, photo[0 : 4 * 12, 8:64])
