"""Protocols and pictures of a benchmark: crops, small images, pairing, degradations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamsr.bench.calibration import calibration, published_way
from dreamsr.bench.dataset import Dataset, open_datasets, partner, pictures_in, shown_window
from dreamsr.bench.methods import Interpolation, Variant
from dreamsr.bench.protocol import (
    PROTOCOLS,
    centre_square,
    choose_protocol,
    cut_truth,
    known_set,
)
from dreamsr.config import from_mapping
from dreamsr.core import resize
from dreamsr.core.noise import seed_of
from dreamsr.core.pixels import Pixels
from dreamsr.data.degradation import degrade_photo
from dreamsr.data.recipes import load_degradation
from dreamsr.data.settings import PhotoConfig
from dreamsr.data.shrinking import Degradation, gaussian_blur, parse_degradation
from dreamsr.errors import ConfigError, DataError, ImageError, UsageError
from dreamsr.measure import metrics

PICTURES = Path(__file__).parents[1] / "pictures"


def drawn(height: int, width: int, seed: int = 0) -> Pixels:
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.uniform(0, 255, (3, max(2, height // 8), max(2, width // 8))))
    return metrics.as_pixels(resize.resize(coarse, height, width))


def save(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def datasets(*folders: Path, low: tuple[Path, ...] = (), protocol: str = "standard", scale: int = 4) -> list[Dataset]:
    return open_datasets(
        folders, low, protocol=PROTOCOLS[protocol], degradation=Degradation(), scale=scale, square_px=64
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_truth_is_cut_at_the_top_left_and_the_small_image_is_its_scale_th(tmp_path: Path, scale: int) -> None:
    pixels = drawn(67, 53)
    save(tmp_path / "a.png", pixels)
    item = datasets(tmp_path, scale=scale)[0].item(0)
    height, width = 67 // scale * scale, 53 // scale * scale
    assert np.array_equal(item.truth, pixels[:height, :width])
    assert item.low.shape == (height // scale, width // scale, 3)
    expected = metrics.as_pixels(resize.shrink_8_bit(metrics.planes(item.truth), scale))
    assert np.array_equal(item.low, expected)


def test_grey_16_bit_and_transparent_files_become_three_channels_of_8_bit(tmp_path: Path) -> None:
    grey = drawn(40, 40)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([drawn(40, 40), np.full((40, 40), 128, np.uint8)])).save(tmp_path / "masked.png")
    opened = datasets(tmp_path)[0]
    deep, plain, masked = (opened.item(number) for number in range(3))
    assert np.array_equal(deep.truth, plain.truth)
    assert np.array_equal(plain.truth, np.repeat(grey[..., None], 3, axis=2))
    assert (deep.grey, plain.grey, masked.grey) == (True, True, False)
    assert np.array_equal(masked.truth, drawn(40, 40))


def test_too_small_pictures_and_broken_files_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a" / "small.png", drawn(16, 40))
    with pytest.raises(DataError, match=r"small\.png: .*too small"):
        datasets(tmp_path / "a")[0].item(0)
    save(tmp_path / "b" / "broken.png", drawn(40, 40))
    whole = (tmp_path / "b" / "broken.png").read_bytes()
    (tmp_path / "b" / "broken.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"broken\.png"):
        datasets(tmp_path / "b")[0].item(0)


def test_folders_without_pictures_or_with_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        pictures_in(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no pictures"):
        pictures_in(tmp_path)
    save(tmp_path / "a.png", drawn(40, 40))
    save(tmp_path / "a.bmp", drawn(40, 40))
    with pytest.raises(DataError, match="several files are called 'a'"):
        pictures_in(tmp_path)


@pytest.mark.parametrize("name", ["baby.png", "baby_x4.png", "babyx4.png", "baby-out.jpg"])
def test_partners_may_carry_a_suffix(tmp_path: Path, name: str) -> None:
    for other in (name, "babysitter.png", "bird.png"):
        save(tmp_path / other, drawn(24, 24))
    assert partner(Path("baby.png"), tmp_path).name == name


def test_a_missing_or_ambiguous_partner_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "baby_1.png", drawn(24, 24))
    with pytest.raises(DataError, match=r"no file for bird\.png"):
        partner(Path("bird.png"), tmp_path)
    save(tmp_path / "baby_2.png", drawn(24, 24))
    with pytest.raises(DataError, match=r"2 files \(baby_1\.png, baby_2\.png\)"):
        partner(Path("baby.png"), tmp_path)


def test_paired_small_images_are_used_as_given_and_a_wrong_scale_is_noticed(tmp_path: Path) -> None:
    save(tmp_path / "large" / "a.png", drawn(64, 64))
    low = drawn(16, 16, seed=7)
    save(tmp_path / "low" / "ax4.png", low)
    item = datasets(tmp_path / "large", low=(tmp_path / "low",))[0].item(0)
    assert np.array_equal(item.low, low)
    with pytest.raises(DataError, match=r"x2.*looks like x4"):
        datasets(tmp_path / "large", low=(tmp_path / "low",), scale=2)[0].item(0)
    with pytest.raises(DataError, match="1 folders of pictures but 2"):
        datasets(tmp_path / "large", low=(tmp_path / "low", tmp_path / "low"))


def test_squares_shrink_the_short_side_and_take_the_middle(tmp_path: Path) -> None:
    pixels = drawn(120, 200)
    square = centre_square(pixels, 64)
    assert square.shape == (64, 64, 3)
    whole = metrics.as_pixels(resize.resize(metrics.planes(pixels), 64, 107))
    assert np.array_equal(square, whole[:, 21:85])
    assert centre_square(drawn(40, 50), 64).shape == (40, 40, 3)
    save(tmp_path / "a.png", pixels)
    assert datasets(tmp_path, protocol="idm")[0].item(0).truth.shape == (64, 64, 3)


def test_degradations_are_parsed_and_repeat_by_seed_and_number() -> None:
    truth = metrics.planes(drawn(64, 64))
    hard = parse_degradation("blur-1.2+noise-10+jpeg-75", seed=3)
    assert (hard.blur_px, hard.noise, hard.jpeg_quality, hard.seed) == (1.2, 10, 75, 3)
    assert np.array_equal(hard.apply(truth, 4, 0), hard.apply(truth, 4, 0))
    assert not np.array_equal(hard.apply(truth, 4, 0), hard.apply(truth, 4, 1))
    other = parse_degradation("noise-10", seed=4).apply(truth, 4, 0)
    assert not np.array_equal(parse_degradation("noise-10", seed=3).apply(truth, 4, 0), other)
    plain = parse_degradation("bicubic")
    assert np.array_equal(plain.apply(truth, 4, 0), metrics.as_pixels(resize.shrink_8_bit(truth, 4)))


@pytest.mark.parametrize("text", ["", "blur", "noise-", "jpeg-0", "jpeg-101", "blur-1+blur-2", "blur--1", "noise-1e9"])
def test_impossible_degradations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`degradation`"):
        parse_degradation(text)


@pytest.mark.parametrize("name", ["photo", "everyday", "table"])
def test_what_training_takes_makes_the_same_small_pictures(tmp_path: Path, name: str) -> None:
    pixels = drawn(64, 96)
    (tmp_path / "mine.toml").write_text("jpeg_quality = [40, 60]\nblur_probability = 1.0\n")
    config = {
        "photo": PhotoConfig(),
        "everyday": from_mapping(PhotoConfig, load_degradation("everyday"), source=name),
        "table": PhotoConfig(jpeg_quality=(40, 60), blur_probability=1.0),
    }[name]
    asked = parse_degradation(str(tmp_path / "mine.toml") if name == "table" else name, seed=3)
    low = asked.apply(metrics.planes(pixels), 4, 7)
    assert low.shape == (16, 24, 3)
    assert np.array_equal(low, degrade_photo(pixels, scale=4, config=config, seed=seed_of(3, 7)))
    assert not np.array_equal(low, asked.apply(metrics.planes(pixels), 4, 8))
    words = PROTOCOLS["standard"].words(scale=4, degradation=asked, paired=False, square_px=512)["small_image"]
    told = "photo with blur_probability=1.0 jpeg_quality=[40, 60]" if name == "table" else name
    assert words == f"{told} (seed 3), 8 bit"


def test_a_wrong_table_is_refused_by_the_name_of_its_field(tmp_path: Path) -> None:
    table = tmp_path / "wrong.toml"
    table.write_text("blurr_px = [1, 2]\n")
    with pytest.raises(ConfigError, match="blurr_px"):
        parse_degradation(str(table))
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_degradation(str(tmp_path / "none.toml"))


def test_blur_keeps_the_mean_of_constants_and_smooths() -> None:
    flat = torch.full((3, 20, 30), 77.0, dtype=torch.float64)
    assert torch.allclose(gaussian_blur(flat, 2.0), flat)
    image = metrics.planes(drawn(40, 48)) + 20 * torch.randn(3, 40, 48, dtype=torch.float64)
    assert gaussian_blur(image, 1.5).var() < image.var()
    assert gaussian_blur(image, 1.5).shape == image.shape


def test_the_shown_window_is_where_the_detail_is() -> None:
    image = np.zeros((200, 240, 3), np.uint8)
    image[120:180, 40:100] = np.random.default_rng(0).integers(0, 255, (60, 60, 3))
    top, left, height, width = shown_window(image, 4, 64)
    assert (height, width) == (64, 64)
    assert 112 <= top <= 124
    assert 32 <= left <= 44


def test_unknown_protocols_and_sets() -> None:
    with pytest.raises(UsageError, match="standard, y-channel, idm"):
        choose_protocol("best")
    assert known_set(frozenset({"baby", "bird", "butterfly", "head", "woman"})).name == "Set5"  # type: ignore[union-attr]
    assert known_set(frozenset({"baby"})) is None
    with pytest.raises(DataError, match="too small"):
        cut_truth(drawn(18, 40), PROTOCOLS["standard"], scale=4, square_px=64)


def test_words_name_every_rule() -> None:
    for protocol in PROTOCOLS.values():
        words = protocol.words(scale=4, degradation=Degradation(), paired=False, square_px=512)
        assert {"luma", "border_px", "small_image", "truth", "lpips", "psnr_y", "seconds_per_megapixel"} <= set(words)
        assert words["name"] == protocol.name


# --- the published way ------------------------------------------------------------------------------------------------


def test_y_channel_interpolates_luma_without_rounding_the_small_image(tmp_path: Path) -> None:
    """The recipe of VDSR (Kim et al. 2016), written out once more in numpy."""
    pixels = np.array(Image.open(PICTURES / "astronaut.png").convert("RGB"))[:128, :128]
    save(tmp_path / "a.png", pixels)
    psnr, ssim = published_way(datasets(tmp_path)[0])
    luma = np.floor(16 + pixels.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 0.5)
    down, up = (resize.resize_matrix(a, b, b / a).numpy() for a, b in ((128, 32), (32, 128)))
    large = up @ (down @ luma @ down.T) @ up.T
    large = np.clip(np.floor(large + 0.5), 16, 235)
    error = np.mean((large - luma)[4:-4, 4:-4] ** 2)
    assert psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert 0.4 < ssim < 1


def test_grey_files_are_scored_on_their_own_values_by_y_channel_only(tmp_path: Path) -> None:
    Image.fromarray(drawn(64, 64)[..., 0]).save(tmp_path / "grey.png")
    results = {}
    for name in ("standard", "y-channel"):
        opened = datasets(tmp_path, protocol=name)[0]
        item = opened.item(0)
        results[name] = opened.protocol.luma(metrics.planes(item.truth), grey=item.grey)
    assert torch.equal(results["y-channel"], metrics.planes(drawn(64, 64))[0])
    assert float(results["standard"].max()) <= 235
    produced = Interpolation("lanczos").run(datasets(tmp_path, protocol="y-channel")[0], 0, Variant())
    assert produced.pixels is None
    assert produced.luma is not None
    assert produced.luma.shape == (64, 64)


def test_calibration_is_for_standard_sets_only_and_tells_other_files_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("baby", "bird", "butterfly", "head", "woman")):
        save(tmp_path / "mine" / f"{name}.png", drawn(48, 48, seed=number))
    opened = datasets(tmp_path / "mine")
    assert opened[0].name == "Set5"
    (one,) = calibration(opened)
    assert one.agrees is False
    assert one.published_psnr_y == 28.42
    save(tmp_path / "other" / "a.png", drawn(48, 48))
    assert calibration(datasets(tmp_path / "other")) == []
