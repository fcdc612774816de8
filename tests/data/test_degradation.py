import math
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from dreamsr.data.degradation import _blurred, _resized, blur_kernel, degrade_photo, sinc_kernel
from dreamsr.data.settings import PhotoConfig
from dreamsr.data.window import shrunk_window
from dreamsr.errors import ConfigError
from tests.data.drawn_photos import noise, scene

QUIET = PhotoConfig(noise=(0, 0), jpeg_quality=(100, 100))
NOTHING = replace(
    QUIET, blur_probability=0, resize=(1, 1), second_probability=0, final_sinc_probability=0, noise_probability=0
)


def spot(size: int, top: float, left: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    bright = 220 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 14**2))
    return np.repeat(np.rint(bright)[..., None], 3, axis=2).astype(np.uint8)


def as_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


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


def test_settings_of_everyday_pictures_draw_nothing_where_they_are_left_alone():
    """The chain as it was before they came, step by step from the same draws."""
    config, photo = PhotoConfig(second_probability=0, final_sinc_probability=0, noise_probability=0), scene(96, 96, 1)
    for seed in range(12):
        draw = np.random.default_rng(seed)
        image = photo.astype(np.float32) / np.float32(255)
        for which in draw.permutation(3):
            if which == 0:
                image = _blurred(draw, image, config, config.blur_px, config.blur_probability)
            elif which == 1:
                factor = math.exp(draw.uniform(*np.log(config.resize)))
                image = _resized(draw, image, (round(96 * factor), round(96 * factor)))
            else:
                draw.random()  # noise, which does not come
        draw.random()  # the second round, which does not come either
        jpeg_first = draw.random() < 0.5
        image = image if jpeg_first else _resized(draw, image, (24, 24))
        _ = None if jpeg_first else draw.random()  # ringing, which does not come
        quality, subsampling = int(draw.integers(30, 95, endpoint=True)), 0 if draw.random() < 0.3 else 2
        file = BytesIO()
        Image.fromarray(as_bytes(image)).save(file, "JPEG", quality=quality, subsampling=subsampling)
        image = np.asarray(Image.open(file), np.float32) / np.float32(255)
        image = _resized(draw, image, (24, 24)) if jpeg_first else image
        low = degrade_photo(photo, scale=4, config=config, seed=seed)
        np.testing.assert_array_equal(low, as_bytes(image))


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


EVERYDAY = {
    "clean": {"clean_share": 1},
    "light": {"light_share": 1},
    "early": {"early_shrink_probability": 1, "jpeg_probability": 0},
    "early, resized": {"early_shrink_probability": 1, "resize": (0.6, 1.2), "jpeg_quality": (90, 90)},
    "jpeg 4:2:0": {"early_shrink_probability": 1, "jpeg_quality": (85, 95), "subsampling_probability": 1},
    "double": {"early_shrink_probability": 1, "jpeg_quality": (85, 95), "double_jpeg_probability": 1},
    "webp": {"early_shrink_probability": 1, "jpeg_quality": (85, 95), "webp_probability": 1},
    "sharpened": {"early_shrink_probability": 1, "jpeg_probability": 0, "sharpen_probability": 1},
}
"""Each new step by itself, of settings at which the rest does nothing."""


def moved_px(low: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far (down, right) `low` [h,w] lies from `wanted`: their difference fitted by its gradients and contrast."""
    down, right = np.gradient(wanted)
    known = np.stack([-down, -right, wanted - wanted.mean(), np.ones_like(wanted)], axis=-1)[4:-4, 4:-4]
    return np.linalg.lstsq(known.reshape(-1, 4), (low - wanted)[4:-4, 4:-4].ravel(), rcond=None)[0][:2]


def test_a_move_is_measured():
    def waves(down: float, right: float) -> np.ndarray:
        return np.add.outer(np.sin((np.arange(48) - down) / 5), np.sin((np.arange(48) - right) / 8))

    np.testing.assert_allclose(moved_px(1.1 * waves(0.2, -0.1), waves(0, 0)), [0.22, -0.11], atol=0.01, rtol=0)


@pytest.mark.parametrize("change", EVERYDAY.values(), ids=EVERYDAY)
def test_no_step_moves_luma_or_colour_by_a_fiftieth_of_a_pixel(change):
    """Against MATLAB's bicubic, over many pictures, since JPEG's rounding moves each a little, to any side."""
    config, weights = replace(NOTHING, **change), ([0.3, 0.6, 0.1], [1, 0, -1])
    moved = []
    for seed in range(60):
        large = scene(256, 256, seed)
        wanted = shrunk_window(large, 4, top=0, left=0, height=64, width=64).astype(float)
        low = degrade_photo(large, scale=4, config=config, seed=seed).astype(float)
        moved.append([moved_px(low @ weight, wanted @ weight) for weight in weights])
    assert np.abs(np.mean(moved, axis=0)).max() < 0.02


def test_clean_crops_are_matlab_s_bicubic_and_light_ones_near_it():
    photo = scene(96, 96, 2)
    bicubic = shrunk_window(photo, 4, top=0, left=0, height=24, width=24).astype(float)
    clean, light = (replace(PhotoConfig(), **{share: 1.0}) for share in ("clean_share", "light_share"))
    for seed in range(4):
        np.testing.assert_array_equal(degrade_photo(photo, scale=4, config=clean, seed=seed), bicubic)
        error = np.abs(degrade_photo(photo, scale=4, config=light, seed=seed) - bicubic).mean()
        assert 0 < error < 20  # colour at half its size, of a picture finer than most
    mixed = replace(PhotoConfig(), clean_share=0.3, light_share=0.2)
    lows = [degrade_photo(photo, scale=4, config=mixed, seed=seed) for seed in range(200)]
    assert np.mean([(low == bicubic).all() for low in lows]) == pytest.approx(0.3, abs=0.1)


def test_without_jpeg_nothing_is_left_of_a_mild_chain_but_the_shrinking():
    flat = np.full((64, 64, 3), [200, 40, 90], np.uint8)
    low = degrade_photo(noise(64, 64), scale=4, config=replace(NOTHING, jpeg_probability=0), seed=1)
    assert low.std() > 5
    np.testing.assert_array_equal(
        degrade_photo(flat, scale=4, config=replace(NOTHING, jpeg_probability=0), seed=1), flat[:16, :16]
    )


def test_a_second_jpeg_leaves_steps_on_a_second_grid():
    """The steps between neighbouring columns are largest at the borders of the first grid; a second adds another."""
    photo = scene(256, 256, 4)
    config = replace(NOTHING, jpeg_quality=(8, 8), subsampling_probability=0)

    def at_borders(config):
        shares = []
        for seed in range(12):
            low = degrade_photo(photo, scale=1, config=config, seed=seed).astype(float).mean(axis=2)
            steps = np.abs(np.diff(low, axis=1)).mean(axis=0)
            by_place = [steps[place::8].mean() for place in range(8)]
            shares.append(by_place[7] / np.mean(by_place))
        return np.mean(shares)

    assert at_borders(config) > 1.15
    assert at_borders(replace(config, double_jpeg_probability=1)) < 0.95 * at_borders(config)


def test_sharpening_raises_contrast_at_edges():
    large = np.full((64, 64, 3), 80, np.uint8)
    large[:, 32:] = 160
    config = replace(NOTHING, jpeg_probability=0, early_shrink_probability=1)
    plain, sharp = (
        degrade_photo(large, scale=2, config=replace(config, sharpen_probability=p, sharpen=(1, 1)), seed=3)
        for p in (0, 1)
    )
    assert np.ptp(sharp.astype(int)) > np.ptp(plain.astype(int)) + 10
    assert sharp[:, :8].mean() == pytest.approx(80, abs=1)


def test_less_colour_is_kept_at_half_its_size():
    stripes = np.full((64, 64, 3), [200, 60, 60], np.uint8)
    stripes[:, ::2] = [60, 110, 200]
    config = replace(NOTHING, jpeg_quality=(95, 95))
    full, half, webp = (
        degrade_photo(stripes, scale=1, config=replace(config, **change), seed=0).astype(float)
        for change in ({"subsampling_probability": 0}, {"subsampling_probability": 1}, {"webp_probability": 1})
    )
    spread = [(low[..., 0] - low[..., 2]).std() for low in (full, half, webp)]
    assert spread[0] > 3 * max(spread[1:])


def test_camera_noise_is_coarser_in_colour_and_stronger_in_shadows():
    config = replace(
        NOTHING, jpeg_probability=0, noise=(8, 8), noise_probability=1, camera_noise_probability=1, chroma_noise=(1, 1)
    )
    dark, light = (
        [
            degrade_photo(np.full((96, 96, 3), level, np.uint8), scale=1, config=config, seed=s).astype(float)
            for s in range(6)
        ]
        for level in (50, 200)
    )
    luma = np.mean([low.mean(axis=2).std() for low in light])
    assert np.mean([low.mean(axis=2).std() for low in dark]) > 1.3 * luma
    assert luma == pytest.approx(8 * (1.3 - 0.65 * 200 / 255), rel=0.1)

    def alike(values):
        """The correlation of neighbours."""
        return np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1]

    assert abs(np.mean([alike(low.mean(axis=2)) for low in light])) < 0.05
    assert np.mean([alike(low[..., 0] - low[..., 2]) for low in light]) > 0.3
    quiet = replace(config, chroma_noise=(0, 0))
    low = degrade_photo(np.full((96, 96, 3), 128, np.uint8), scale=1, config=quiet, seed=1)
    assert np.ptp(low.astype(int), axis=2).max() <= 1


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
        {"clean_share": 1.1},
        {"clean_share": 0.6, "light_share": 0.6},
        {"webp_probability": 2.0},
        {"sharpen": (2.0, 1.0)},
        {"chroma_noise": (-1.0, 1.0)},
    ],
)
def test_impossible_settings_are_refused_by_name(change):
    with pytest.raises(ConfigError, match=f"photo.{next(iter(change))}"):
        PhotoConfig(**change)
