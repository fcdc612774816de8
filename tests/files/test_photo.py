import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawn import noise, scene

from dreamsr.config import PhotoConfig
from dreamsr.errors import ConfigError
from dreamsr.files.photo import blur_kernel, degrade_photo, sinc_kernel

QUIET = PhotoConfig(noise=(0, 0), jpeg_quality=(100, 100))
NOTHING = replace(
    QUIET, blur_probability=0, resize=(1, 1), second_probability=0, final_sinc_probability=0, noise_probability=0
)


def spot(size: int, top: float, left: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    bright = 220 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 14**2))
    return np.repeat(np.rint(bright)[..., None], 3, axis=2).astype(np.uint8)


def centre(image: np.ndarray) -> np.ndarray:
    """(top, left) of the brightness, in px."""
    weight = image.mean(axis=2)
    return np.array([(weight * grid).sum() / weight.sum() for grid in np.mgrid[0 : image.shape[0], 0 : image.shape[1]]])


def test_the_same_seed_gives_the_same_bytes_and_another_others():
    photo = scene(96, 120, 1)
    before = photo.copy()
    first, again, other = (degrade_photo(photo, scale=4, config=PhotoConfig(), seed=seed) for seed in (3, 3, 4))
    assert first.shape == (24, 30, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("threads", [1, 4])
def test_bytes_do_not_depend_on_opencv_s_threads_nor_its_seed_and_both_are_left_alone(threads):
    photo = scene(160, 160, 1)
    expected = [degrade_photo(photo, scale=2, config=PhotoConfig(), seed=seed) for seed in range(6)]
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        cv2.setRNGSeed(7)
        np.random.seed(7)  # noqa: NPY002 - the global state that must not matter
        for seed, image in enumerate(expected):
            np.testing.assert_array_equal(degrade_photo(photo, scale=2, config=PhotoConfig(), seed=seed), image)
        assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("size", [(4, 4), (4, 400), (8, 12)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_every_size_and_seed_gives_a_picture(size, scale):
    wild = PhotoConfig(
        blur_px=(0, 20), resize=(0.05, 4), second_resize=(0.05, 4), noise=(0, 128), jpeg_quality=(1, 100)
    )
    for seed in range(8):
        low = degrade_photo(noise(*size), scale=scale, config=wild, seed=seed)
        assert low.shape == (size[0] // scale, size[1] // scale, 3)


def test_a_size_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        degrade_photo(noise(16, 18), scale=4, config=PhotoConfig(), seed=0)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_small_picture_lies_exactly_on_the_large_one(scale):
    """The centre of a spot stays, whatever was drawn; half a pixel of drift in any step would show."""
    large = spot(180, 101.3, 76.8)
    wanted = (centre(large) + 0.5) / scale - 0.5
    for seed in range(25):
        low = degrade_photo(large, scale=scale, config=QUIET, seed=seed)
        np.testing.assert_allclose(centre(low), wanted, rtol=0, atol=0.08)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_stays_where_it_is(axis):
    ramp = np.repeat(np.arange(40, 216, dtype=np.uint8)[:, None], 176, axis=1)[..., None].repeat(3, axis=2)
    large = np.ascontiguousarray(ramp.swapaxes(0, axis))
    low = np.mean([degrade_photo(large, scale=4, config=PhotoConfig(), seed=seed) for seed in range(40)], axis=0)
    profile = low.swapaxes(0, axis).mean(axis=(1, 2))[6:-6]
    wanted = 40 + 4 * (np.arange(44) + 0.5) - 0.5
    np.testing.assert_allclose(profile, wanted[6:-6], rtol=0, atol=1.0)


def test_the_mildest_settings_leave_little_but_the_shrinking():
    photo = scene(96, 96, 2)
    area = photo.reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
    errors = [np.abs(degrade_photo(photo, scale=4, config=NOTHING, seed=seed) - area).mean() for seed in range(12)]
    assert min(errors) < 4  # of the ways to shrink one is the mean; colour is stored at half the size
    strong = [
        np.abs(degrade_photo(photo, scale=4, config=PhotoConfig(), seed=seed) - area).mean() for seed in range(12)
    ]
    assert np.median(strong) > 1.5 * np.median(errors)


@pytest.mark.parametrize(
    ("change", "rougher"),
    [
        ({"noise": (20, 20), "noise_probability": 1}, True),
        ({"noise": (20, 20), "noise_probability": 1, "poisson_probability": 1}, True),
        ({"noise": (20, 20), "noise_probability": 1, "grey_noise_probability": 1}, True),
        ({"jpeg_quality": (10, 10)}, True),
        ({"blur_px": (6, 6), "blur_probability": 1}, False),
        ({"resize": (0.1, 0.1)}, False),
        ({"final_sinc_probability": 1}, False),
        ({"second_probability": 1, "second_blur_px": (3, 3), "second_blur_probability": 1}, False),
        ({"second_probability": 1, "second_resize": (0.2, 0.2)}, False),
    ],
    ids=str,
)
def test_every_setting_does_what_it_says(change, rougher):
    """Roughness of a flat or smooth picture rises with noise and JPEG; that of a rough one falls with every blur."""
    config = replace(NOTHING, sinc_probability=0, grey_noise_probability=0, poisson_probability=0)
    photo = np.full((96, 96, 3), 128, np.uint8) if "noise" in change else noise(96, 96)
    photo = spot(96, 48, 48) if "jpeg_quality" in change else photo

    def roughness(config):
        images = [degrade_photo(photo, scale=2, config=config, seed=seed).astype(float) for seed in range(8)]
        return np.mean([np.abs(np.diff(image, 2, axis=0)).mean() for image in images])

    ratio = roughness(replace(config, **change)) / max(1e-3, roughness(config))
    assert ratio > 1.2 if rougher else ratio < 0.95


def test_noise_has_its_stated_strength_and_grey_noise_no_colour():
    flat = np.full((128, 128, 3), 128, np.uint8)
    config = replace(NOTHING, noise=(20, 20), noise_probability=1, poisson_probability=0, grey_noise_probability=0)
    for shot in (0, 1):
        low = degrade_photo(flat, scale=1, config=replace(config, poisson_probability=shot), seed=0).astype(float)
        luma = low @ [0.299, 0.587, 0.114]  # JPEG's small planes of colour take their share of the rest
        assert luma.std() == pytest.approx(20 * 0.668, rel=0.05)
    grey = degrade_photo(flat, scale=1, config=replace(config, grey_noise_probability=1), seed=0).astype(float)
    assert grey.std() == pytest.approx(20, rel=0.05)
    assert np.ptp(grey, axis=2).max() <= 3


def test_shot_noise_is_stronger_in_the_light():
    dark, light = (np.full((64, 64, 3), level, np.uint8) for level in (20, 200))
    config = replace(NOTHING, noise=(10, 10), noise_probability=1, poisson_probability=1)
    spread = [degrade_photo(flat, scale=1, config=config, seed=1).std() for flat in (dark, light)]
    assert spread[1] > 2 * spread[0]


@pytest.mark.parametrize("shape", [{}, {"beta": 0.6}, {"beta": 1.5, "plateau": True}], ids=str)
@pytest.mark.parametrize("sigmas", [(0.0, 0.0), (2.0, 2.0), (4.0, 1.0)])
def test_kernels_keep_brightness_and_place(sigmas, shape):
    kernel = blur_kernel(*sigmas, 0.7, **shape)
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-15)


def test_a_gaussian_kernel_has_its_standard_deviations_along_its_angle():
    kernel = blur_kernel(4.0, 1.5, math.radians(30))
    radius = kernel.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along, across = (math.cos(a) * x + math.sin(a) * y for a in (math.radians(30), math.radians(120)))
    assert math.sqrt((kernel * along**2).sum()) == pytest.approx(4.0, rel=0.02)
    assert math.sqrt((kernel * across**2).sum()) == pytest.approx(1.5, rel=0.02)


def test_the_sinc_kernel_passes_low_frequencies_and_stops_high_ones():
    cutoff = math.pi / 2
    kernel = sinc_kernel(40, cutoff)
    np.testing.assert_allclose(kernel, kernel.T, rtol=0, atol=1e-15)
    response = np.abs(np.fft.fft2(kernel, (256, 256)))[0]
    frequency = 2 * math.pi * np.arange(256) / 256
    assert response[frequency < 0.8 * cutoff].min() > 0.85
    assert response[(frequency > 1.2 * cutoff) & (frequency <= math.pi)].max() < 0.15


@pytest.mark.parametrize(
    "change",
    [
        {"second_resize": (0.0, 1.0)},
        {"resize": (2.0, 1.0)},
        {"final_sinc_probability": 1.5},
        {"second_blur_probability": -0.1},
        {"jpeg_quality": (0, 50)},
        {"noise": (0, 300)},
    ],
)
def test_impossible_settings_are_refused_by_name(change):
    with pytest.raises(ConfigError, match=f"photo.{next(iter(change))}"):
        PhotoConfig(**change)
