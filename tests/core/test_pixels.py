from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from dreamsr.core.pixels import from_tensor, match_colour, match_low_frequencies, to_tensor
from dreamsr.core.resize import enlarge, shrink
from tests.core.oracles import images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_round_trip_is_exact_for_every_value(dtype: type[np.uint8] | type[np.uint16]) -> None:
    peak = int(np.iinfo(dtype).max)
    pixels = np.arange(peak + 1, dtype=dtype).reshape(16, -1, 1).repeat(3, axis=2)
    pixels[..., 1] = peak - pixels[..., 1]
    image = to_tensor(pixels)
    assert image.dtype == torch.float32
    assert image.shape == (3, *pixels.shape[:2])
    back = from_tensor(image, dtype)
    assert back.dtype == dtype
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_is_minus_one_and_white_is_one(dtype: type[np.uint8] | type[np.uint16]) -> None:
    ends = np.array([[[0, 0, 0], [np.iinfo(dtype).max] * 3]], dtype=dtype)
    assert to_tensor(ends)[0].tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_out_of_range_are_clipped(dtype: type[np.uint8] | type[np.uint16]) -> None:
    image = torch.tensor([-7.0, -1.0001, 1.0001, 7.0]).expand(3, 1, 4)
    peak = np.iinfo(dtype).max
    assert from_tensor(image, dtype)[0, :, 0].tolist() == [0, 0, peak, peak]


def test_values_between_levels_are_rounded_and_not_cut() -> None:
    image = (torch.tensor([10.4, 10.6, 254.6]) / 127.5 - 1).expand(3, 1, 3)
    assert from_tensor(image)[0, :, 0].tolist() == [10, 11, 255]


def test_gradient_and_low_precision_do_not_matter() -> None:
    image = images(1, dtype=torch.float32)[0].to(torch.bfloat16).requires_grad_()
    assert np.array_equal(from_tensor(image), from_tensor(image.detach().float()))


def test_pixels_keep_their_places() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = to_tensor(pixels)
    assert float(image[2, 3, 1]) == pytest.approx(pixels[3, 1, 2] / 127.5 - 1, abs=1e-6)
    turned = pixels[:, ::-1]
    assert np.array_equal(from_tensor(to_tensor(turned)), turned)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_given_are_left_alone(dtype: type[np.uint8] | type[np.uint16]) -> None:
    pixels = np.full((2, 2, 3), 77, dtype=dtype)
    to_tensor(pixels).add_(1)
    assert bool((pixels == 77).all())


# match_low_frequencies


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(6, 7), (1, 1), (2, 9)])
def test_shrinking_the_matched_image_approaches_the_small_one(scale: int, size: tuple[int, int]) -> None:
    low = images(1, size=size)
    image = images(1, seed=3, size=(scale * size[0], scale * size[1])) + 0.2
    errors = [
        float((shrink(match_low_frequencies(image, low, scale=scale, rounds=rounds), scale) - low).abs().max())
        for rounds in (0, 1, 2, 4, 40)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[-1] < 1e-4
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("scale", "left"), [("37/10", 1e-3), ("3/2", 1e-3), ("41/40", 0.2)])
def test_matching_works_between_whole_factors(scale: str, left: float) -> None:
    """Close to 1 little is held: halfway between pixels, bicubic shows nothing of the finest pattern of this noise."""
    factor = Fraction(scale)
    low = images(1, size=(factor.denominator, 2 * factor.denominator))
    image = images(1, seed=3, size=(factor.numerator, 2 * factor.numerator)) + 0.2
    errors = [
        float((shrink(match_low_frequencies(image, low, scale=factor, rounds=rounds), factor) - low).abs().max())
        for rounds in (0, 1, 2, 60)
    ]
    assert errors[1] < 0.6 * errors[0]
    assert errors[-1] < left
    assert errors == sorted(errors, reverse=True)


def test_consistent_image_is_left_alone() -> None:
    image = images(2, size=(12, 16))
    matched = match_low_frequencies(image, shrink(image, 4), scale=4, rounds=3)
    torch.testing.assert_close(matched, image, rtol=0, atol=1e-15)


def test_no_rounds_change_nothing() -> None:
    image = images(1, size=(8, 8))
    assert torch.equal(match_low_frequencies(image, images(1, size=(2, 2)), scale=4, rounds=0), image)


def test_colour_drift_is_removed() -> None:
    image = images(1, size=(16, 16))
    drift = torch.tensor([0.1, -0.05, 0.2], dtype=torch.float64).view(1, 3, 1, 1)
    matched = match_low_frequencies(image + drift, shrink(image, 4), scale=4)
    torch.testing.assert_close(matched, image, rtol=0, atol=1e-12)


def test_only_what_the_small_image_holds_is_added() -> None:
    image, low = images(1, size=(16, 16)), images(1, seed=3, size=(4, 4))
    matched = match_low_frequencies(image, low, scale=4, rounds=1)
    torch.testing.assert_close(matched - image, enlarge(low - shrink(image, 4), 4), rtol=0, atol=1e-14)


def test_images_given_are_left_alone() -> None:
    image, low = images(1, size=(8, 8)), images(1, seed=3, size=(4, 4))
    before = image.clone(), low.clone()
    match_low_frequencies(image, low, scale=2)
    assert torch.equal(image, before[0])
    assert torch.equal(low, before[1])


# match_colour


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (15, 16), (50, 33)])
def test_held_colours_keep_the_mean_and_move_nothing_that_fits(size):
    low, image = images(2, size=size), images(2, size=(4 * size[0], 4 * size[1]))
    drifted = match_colour(image + 0.2, low, scale=4)
    mean = shrink(drifted, 4).mean(dim=(2, 3))
    assert torch.allclose(mean, low.mean(dim=(2, 3)), atol=1e-9)
    own = shrink(image, 4)
    assert torch.allclose(match_colour(image, own, scale=4), image, atol=1e-12)


def test_held_colours_do_not_put_noise_and_blocks_back():
    clean = torch.zeros(1, 3, 256, 256, dtype=torch.float64)
    noise = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = torch.kron(noise[..., ::8, ::8].contiguous(), torch.ones(8, 8, dtype=torch.float64))
    for damage in (noise, blocks):
        everything = match_low_frequencies(clean, damage, scale=4)
        colour = match_colour(clean, damage, scale=4)
        assert colour.std() < everything.std() / 2.5
    assert match_colour(clean, noise, scale=4).std() < noise.std() / 15


def test_held_colours_remove_a_slow_drift():
    y, x = torch.meshgrid(torch.linspace(0, 1, 256), torch.linspace(0, 1, 256), indexing="ij")
    image = images(1, size=(256, 256)) * 0.1
    drift = (0.2 * x - 0.1 * y).to(image)
    matched = match_colour(image + drift, shrink(image, 4), scale=4)
    assert (matched - image).abs().max() < 0.03
