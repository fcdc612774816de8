from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamsr.core.resize import (
    as_stored,
    cubic,
    enlarge,
    enlarge_8_bit,
    resize,
    resize_matrix,
    shrink,
    shrink_8_bit,
    to_grey_levels,
)
from tests.core.oracles import images

Resized = Callable[[torch.Tensor, int], torch.Tensor]
SIZES = [(1, 1), (2, 3), (5, 8), (12, 9), (17, 16)]


def keys(distance: float) -> float:
    d = abs(distance)
    if d < 1:
        return (1.5 * d - 2.5) * d * d + 1
    return ((-0.5 * d + 2.5) * d - 4) * d + 2 if d < 2 else 0.0


def imresize_rows(image: NDArray[np.float64], new_size: int, scale: float) -> NDArray[np.float64]:
    """MATLAB's documented method, pixel by pixel, in its coordinates, which count from 1."""
    size = image.shape[0]
    kernel_scale = min(scale, 1.0)
    reach = math.ceil(2 / kernel_scale) + 1
    out = np.zeros((new_size, *image.shape[1:]))
    for x in range(1, new_size + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        total = 0.0
        for position in range(math.floor(u) - reach, math.floor(u) + reach + 2):
            weight = keys((u - position) * kernel_scale)
            inside = position
            while not 1 <= inside <= size:  # mirrored about the outer edge of the border pixel
                inside = 1 - inside if inside < 1 else 2 * size + 1 - inside
            out[x - 1] += weight * image[inside - 1]
            total += weight
        out[x - 1] /= total
    return out


def imresize(image: NDArray[np.float64], height: int, width: int, scale: tuple[float, float]) -> NDArray[np.float64]:
    """[H,W,C] -> [height,width,C]."""
    rows = imresize_rows(image, height, scale[0])
    return imresize_rows(rows.transpose(1, 0, 2), width, scale[1]).transpose(1, 0, 2)


def as_array(image: torch.Tensor) -> NDArray[np.float64]:
    return image[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_shrink_is_matlab_s_imresize(size: tuple[int, int], factor: int) -> None:
    image = images(1, size=size)
    height, width = (math.ceil(n / factor) for n in size)
    expected = imresize(as_array(image), height, width, (1 / factor, 1 / factor))
    np.testing.assert_allclose(as_array(shrink(image, factor)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_enlarge_is_matlab_s_imresize(size: tuple[int, int], factor: int) -> None:
    image = images(1, size=size)
    expected = imresize(as_array(image), factor * size[0], factor * size[1], (factor, factor))
    np.testing.assert_allclose(as_array(enlarge(image, factor)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "new"), [((7, 9), (5, 14)), ((8, 8), (3, 3)), ((4, 6), (9, 7)), ((5, 5), (5, 4))])
def test_resize_to_a_size_is_matlab_s_imresize(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = images(1, size=size)
    expected = imresize(as_array(image), *new, (new[0] / size[0], new[1] / size[1]))
    np.testing.assert_allclose(as_array(resize(image, *new)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.3, 0.75, 1.5, 2.6])
def test_resize_by_a_scale_is_matlab_s_imresize(scale: float) -> None:
    image = images(1, size=(7, 10))
    height, width = math.ceil(7 * scale), math.ceil(10 * scale)
    expected = imresize(as_array(image), height, width, (scale, scale))
    np.testing.assert_allclose(as_array(resize(image, height, width, scale=scale)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [Fraction(37, 10), Fraction(9, 4), Fraction(41, 40)], ids=str)
def test_factor_between_whole_numbers_is_matlab_s_imresize(size: tuple[int, int], factor: Fraction) -> None:
    image, scale = images(1, size=size), float(factor)
    tall, wide = (math.ceil(n * factor) for n in size)
    expected = imresize(as_array(image), tall, wide, (scale, scale))
    np.testing.assert_allclose(as_array(enlarge(image, factor)), expected, rtol=0, atol=1e-12)
    short, narrow = (math.ceil(n / factor) for n in size)
    expected = imresize(as_array(image), short, narrow, (1 / scale, 1 / scale))
    np.testing.assert_allclose(as_array(shrink(image, factor)), expected, rtol=0, atol=1e-12)


def scene(size: tuple[int, int]) -> torch.Tensor:
    """[3,H,W] float64 in whole values 0..255: waves, edges and grain, as photographs have, and some of it clipped."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / (2 + c)) + np.cos(y / (3 + c)) + (x > 2 * y) for c in range(3)]
    grain = np.random.default_rng(0).normal(0, 20, (3, *size))
    return torch.from_numpy((np.stack(waves) * 70 + 110 + grain).clip(0, 255).round())


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("change", [shrink_8_bit, enlarge_8_bit])
def test_8_bit_images_are_rounded_after_the_rows_and_after_the_columns(factor: int, change: Resized) -> None:
    """As MATLAB, whose `imresize` keeps uint8 between its two passes; all of its small pictures of Set5 agree."""
    image = scene((33, 46))
    scale = 1 / factor if change is shrink_8_bit else float(factor)
    height, width = (math.ceil(n * scale) for n in image.shape[-2:])
    rows = np.floor(imresize_rows(image.permute(1, 2, 0).numpy(), height, scale).clip(0, 255) + 0.5)
    columns = imresize_rows(rows.transpose(1, 0, 2), width, scale).transpose(1, 0, 2)
    expected = np.floor(columns.clip(0, 255) + 0.5)
    found = change(image, factor)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)
    once = to_grey_levels((shrink if change is shrink_8_bit else enlarge)(image, factor))
    assert 0.01 < float((found != once).double().mean()) < 0.5


def test_8_bit_images_that_keep_their_size_or_are_flat_stay_as_they_are() -> None:
    image = scene((5, 7))
    assert shrink_8_bit(image, 1) is image
    flat = torch.full((3, 8, 8), 77.0, dtype=torch.float64)
    assert torch.equal(shrink_8_bit(flat, 4), flat[:, :2, :2])
    assert torch.equal(enlarge_8_bit(flat, 2), flat.repeat(1, 2, 2))


def test_whole_fraction_is_the_same_as_the_number() -> None:
    image = images(1, size=(6, 9), dtype=torch.float32)
    assert torch.equal(enlarge(image, Fraction(3)), enlarge(image, 3))
    assert torch.equal(shrink(image, Fraction(3)), shrink(image, 3))
    assert shrink(image, Fraction(1)) is image


@pytest.mark.parametrize("parts", [41, 147, 148, 149, 160])
def test_shrinking_back_gives_the_size_again(parts: int) -> None:
    """Whole pixels times and over a factor: one that is rounded would now and then give one pixel more."""
    low = images(1, size=(40, 120))
    large = enlarge(low, Fraction(parts, 40))
    assert large.shape[-2:] == (parts, 3 * parts)
    assert shrink(large, Fraction(parts, 40)).shape == low.shape


@pytest.mark.parametrize("size", [(131, 300), (64, 65)])
def test_image_larger_than_a_block_is_resized_as_by_the_whole_matrix(size: tuple[int, int]) -> None:
    image = images(1, size=size)
    for scale, change in ((1 / 3, lambda x: shrink(x, 3)), (2.0, lambda x: enlarge(x, 2))):
        rows, columns = (resize_matrix(n, math.ceil(n * scale), scale) for n in size)
        torch.testing.assert_close(change(image), rows @ image @ columns.mT, rtol=0, atol=1e-13)
    expected = imresize(as_array(image), *(math.ceil(n / 3) for n in size), (1 / 3, 1 / 3))
    np.testing.assert_allclose(as_array(shrink(image, 3)), expected, rtol=0, atol=1e-12)


def test_ramp_shrinks_to_the_values_worked_out_by_hand() -> None:
    """imresize(1:8, 1/2): at half scale the taps weigh 111, 29, -9, -3 in 256ths on either side."""
    ramp = torch.arange(1, 9, dtype=torch.float64).expand(1, 3, 8, 8)
    expected = [1.44921875, 3.48828125, 5.51171875, 7.55078125]
    assert shrink(ramp, 2)[0, 0, 0].tolist() == pytest.approx(expected, abs=1e-13)
    assert shrink(ramp.mT, 2)[0, 0, :, 0].tolist() == pytest.approx(expected, abs=1e-13)


def test_ramp_enlarges_to_the_values_worked_out_by_hand() -> None:
    ramp = torch.arange(1, 5, dtype=torch.float64).expand(1, 3, 4, 4)
    expected = [0.90625, 1.1796875, 1.7265625, 2.25, 2.75, 3.2734375, 3.8203125, 4.09375]
    assert enlarge(ramp, 2)[0, 0, 0].tolist() == pytest.approx(expected, abs=1e-13)


def test_kernel_is_keys_cubic() -> None:
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    assert cubic(x).tolist() == pytest.approx([keys(float(v)) for v in x], abs=1e-14)
    assert cubic(torch.tensor([0.0, 1.0, 2.0, 0.5, 1.5], dtype=torch.float64)).tolist() == [1, 0, 0, 0.5625, -0.0625]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("scale", [1 / 8, 1 / 3, 0.5, 1.0, 2.0, 4.0])
def test_rows_of_the_matrix_sum_to_one(size: int, scale: float) -> None:
    matrix = resize_matrix(size, math.ceil(size * scale), scale)
    assert matrix.dtype == torch.float64
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_constant_stays_constant(size: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    flat = torch.full((1, 3, *size), 0.37, dtype=dtype)
    for changed in (shrink(flat, 4), enlarge(flat, 3), resize(flat, 5, 6)):
        assert changed.dtype == dtype
        torch.testing.assert_close(changed, torch.full_like(changed, 0.37), rtol=0, atol=tolerance)


def test_ramp_stays_a_ramp_away_from_the_borders() -> None:
    ramp = torch.arange(32, dtype=torch.float64).expand(1, 3, 32, 32)
    inner = enlarge(ramp, 4)[0, 0, 0, 8:-8]
    torch.testing.assert_close(inner.diff(), torch.full_like(inner[1:], 0.25), rtol=0, atol=1e-12)
    assert float(inner[0]) == pytest.approx((8 + 0.5) / 4 - 0.5, abs=1e-12)


@pytest.mark.parametrize("size", [(5, 8), (16, 17)])
def test_size_of_one_factor_is_untouched(size: tuple[int, int]) -> None:
    image = images(2, size=size)
    assert shrink(image, 1) is image
    torch.testing.assert_close(enlarge(image, 1), image, rtol=0, atol=1e-15)


def test_float32_is_close_to_float64() -> None:
    image = images(2, size=(24, 31))
    for change in (lambda x: shrink(x, 4), lambda x: enlarge(x, 4)):
        torch.testing.assert_close(change(image.float()).double(), change(image), rtol=0, atol=1e-6)


def test_autocast_does_not_lower_the_precision() -> None:
    image = images(1, size=(16, 16), dtype=torch.float32)
    plain = shrink(image, 2), enlarge(image, 2)
    with torch.autocast("cpu", torch.bfloat16):
        cast = shrink(image, 2), enlarge(image, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    image = images(3, size=(9, 12))
    together = shrink(image, 3)
    for i in range(3):
        torch.testing.assert_close(shrink(image[i], 3), together[i], rtol=0, atol=1e-14)


def test_gradient_passes_through() -> None:
    image = images(1, size=(6, 6)).requires_grad_()
    shrink(image, 2).sum().backward()
    assert image.grad is not None
    assert float(image.grad.sum()) == pytest.approx(3 * 9, abs=1e-12)


def test_as_stored_lands_on_256_values_and_leaves_them_there() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    torch.testing.assert_close(as_stored(levels), levels, rtol=0, atol=1e-15)
    stored = as_stored(1.2 * images(1, size=(16, 16)))
    assert torch.equal(as_stored(stored), stored)
    steps = (stored + 1) * 127.5
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-12)
    assert stored.abs().max() <= 1


def test_as_stored_moves_by_half_a_level_at_most() -> None:
    image = images(1, size=(32, 32))
    assert float((as_stored(image) - image).abs().max()) <= 0.5 / 127.5 + 1e-15
