"""Validation: what it measures, on what, by which figure it chooses, and that training does not notice it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dreamsr.core import resize
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.model import ModelConfig, build_denoiser
from dreamsr.core.pixels import from_tensor, to_tensor
from dreamsr.core.process import ProcessConfig
from dreamsr.errors import ConfigError, DataError, OutputError
from dreamsr.measure import metrics
from dreamsr.measure.metrics import LPIPS_ALEX, PSNR_Y, SSIM_Y, Metric
from dreamsr.training.config import TrainConfig
from dreamsr.training.finetuning.sanity import sanity_picture
from dreamsr.training.results import curves, validation
from dreamsr.training.results.log import VALIDATIONS, TrainLog, read_lines
from dreamsr.training.results.sample_grid import CAPTION_PX, GAP_PX, Column, blown_up, sample_grid
from dreamsr.training.results.validation import (
    MAX_LOW_PX,
    Example,
    Validator,
    degraded_example,
    least_side_px,
    open_validation,
    paired_example,
    score_of,
)
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.upscaler import Upscaler
from tests.training.tiny_runs import valid_row

CONFIG = TrainConfig(valid_steps=(1, 3), precision="fp32")


def drawn(height: int = 72, width: int = 80, seed: int = 0) -> np.ndarray:
    """A part of the sanity picture, another for each seed."""
    return np.roll(sanity_picture(160), 37 * seed, axis=(0, 1))[:height, :width]


class Knowing(nn.Module):
    """A net that recognises small images and returns what it was told of them."""

    scale, continuous, predicts_base = 4, False, False

    def __init__(self, answers: Mapping[bytes, Tensor]) -> None:
        super().__init__()
        self.answers = dict(answers)
        self.dropout = nn.Dropout()
        self.levels: list[float] = []
        self.modes: list[bool] = []

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        assert scale in (None, self.scale)
        return Condition(resize.enlarge(low, 4), features=self.answers[from_tensor(low[0]).tobytes()][None])

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        assert condition.features is not None
        self.modes.append(self.dropout.training)
        self.levels.append(float(level[0]))
        return condition.features.to(x_t)


def knowing(examples: tuple[Example, ...]) -> Denoiser:
    """The oracle that gives the truth."""
    return build_denoiser(CONFIG.model, Knowing({one.low.tobytes(): to_tensor(one.truth) for one in examples}))


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here: its weights may have to be fetched."""
    monkeypatch.setattr(validation, "Perceptual", lambda _: lambda _image, _truth: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in a folder and one below it, one that is too small, one that is damaged, and a text."""
    place = tmp_path_factory.mktemp("held-out")
    (place / "more").mkdir()
    for number, name in enumerate(["b.png", "c.png", "more/d.png"]):
        Image.fromarray(drawn(72 + 4 * number, 80, number)).save(place / name)
    Image.fromarray(drawn(20, 80)).save(place / "a-small.png")
    (place / "a-damaged.png").write_bytes((place / "b.png").read_bytes()[:200])
    (place / "notes.txt").write_text("no picture")
    return place


@pytest.fixture
def validator(folder: Path, tmp_path: Path) -> Validator:
    return open_validation(folder, CONFIG, tmp_path)


def test_an_oracle_is_nearly_perfect_at_every_number_of_steps(validator: Validator) -> None:
    found = validator(knowing(validator.examples), 7)
    assert found.step == 7
    assert [row.steps for row in found.rows] == [1, 3]
    # Back-projection onto a small image of 8 bits moves the truth a little.
    assert all(row.figures[PSNR_Y] > 50 and row.figures[SSIM_Y] > 0.998 for row in found.rows)
    assert found.score == found.rows[0].figures[PSNR_Y]
    assert found.bicubic.figures[PSNR_Y] < 30


def test_bicubic_is_what_the_metrics_say_of_bicubic(validator: Validator, folder: Path) -> None:
    psnr, ssim = [], []
    for name in ("b.png", "c.png", "more/d.png"):
        truth = np.asarray(Image.open(folder / name))
        low = resize.shrink_8_bit(metrics.planes(truth), 4)
        large = metrics.as_pixels(resize.enlarge_8_bit(low, 4))
        luma, true_luma = (metrics.luma(metrics.planes(image))[4:-4, 4:-4] for image in (large, truth))
        psnr.append(metrics.psnr(luma, true_luma))
        ssim.append(metrics.ssim(luma, true_luma))
    expected = valid_row(0, fmean(psnr), fmean(ssim), None)
    assert validator.bicubic == expected
    assert validator(knowing(validator.examples), 0).bicubic == expected


def test_pictures_are_enlarged_as_upscale_does(validator: Validator, tiny_upscaler: Upscaler) -> None:
    images = validator.enlarged(tiny_upscaler.denoiser)
    for steps, found in images.items():
        for number, (image, one) in enumerate(zip(found, validator.examples, strict=True)):
            expected = tiny_upscaler.enlarge(one.low, *one.truth.shape[:2], Settings(steps=steps, seed=number))
            assert np.array_equal(image, expected)


def test_the_same_weights_give_the_same_figures(folder: Path, tmp_path: Path, tiny_upscaler: Upscaler) -> None:
    first, again = open_validation(folder, CONFIG, tmp_path), open_validation(folder, CONFIG, tmp_path)
    assert first(tiny_upscaler.denoiser, 1) == first(tiny_upscaler.denoiser, 1) == again(tiny_upscaler.denoiser, 1)


def test_training_does_not_notice(validator: Validator) -> None:
    denoiser = knowing(validator.examples)
    net = denoiser.net
    net.train()
    torch.manual_seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    validator(denoiser, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert net.training
    assert net.dropout.training
    assert not any(net.modes)


def test_building_lpips_draws_nothing_from_the_global_generator(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "Perceptual", lambda _: (torch.rand(3), lambda _image, _truth: {})[1])
    before = torch.random.get_rng_state()
    open_validation(folder, CONFIG, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_cannot_be_used_is_passed_over_and_the_limit_counts_the_rest(folder: Path, tmp_path: Path) -> None:
    names = [one.name for one in open_validation(folder, CONFIG, tmp_path).examples]
    assert names == ["b.png", "c.png", "more/d.png"]
    few = open_validation(folder, replace(CONFIG, valid_limit=2), tmp_path)
    assert [one.name for one in few.examples] == ["b.png", "c.png"]


def test_steps_beyond_the_process_become_its_last_and_count_once(folder: Path, tmp_path: Path) -> None:
    model = ModelConfig(process=ProcessConfig(timesteps=4))
    validator = open_validation(folder, TrainConfig(model=model, valid_steps=(2, 4, 16, 1000)), tmp_path)
    assert validator.steps == (2, 4)
    found = validator(knowing(validator.examples), 0)
    assert [row.steps for row in found.rows] == [2, 4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "nowhere", "no such folder; give `valid`"),
        (lambda path: path, "no usable picture found; give `valid`"),
    ],
)
def test_a_missing_or_empty_folder_is_told_in_one_line(tmp_path: Path, make, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        open_validation(make(tmp_path), CONFIG, tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_of_unusable_pictures_says_what_is_wrong_with_the_first(tmp_path: Path) -> None:
    Image.fromarray(drawn(20, 80)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png.* smaller than"):
        open_validation(tmp_path, CONFIG, tmp_path)


def test_a_validation_needs_examples_and_numbers_of_steps(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture"):
        Validator([], CONFIG)
    with pytest.raises(ConfigError, match="valid_steps"):
        open_validation(folder, replace(CONFIG, valid_steps=()), tmp_path)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8, 16])
def test_the_least_picture_can_still_be_measured(scale: int) -> None:
    config = replace(CONFIG, model=ModelConfig(scale=scale))
    side = least_side_px(scale)
    assert side % scale == 0
    validator = Validator([degraded_example("least", drawn(side, side), config, number=0)], config)
    assert np.isfinite(validator.bicubic.figures[SSIM_Y])


def test_large_pictures_are_cut_to_their_middle() -> None:
    large = np.zeros((300, 301, 3), np.uint8)
    large[...] = np.arange(300)[:, None, None] % 256
    one = degraded_example("large", large, CONFIG, number=0)
    assert one.low.shape == (MAX_LOW_PX, MAX_LOW_PX, 3)
    top = 4 * ((300 // 4 - MAX_LOW_PX) // 2)
    assert np.array_equal(one.truth, large[top : top + 256, 20:276])


@pytest.mark.parametrize("shape", [(75, 70), (76, 71)])
def test_given_pairs_stay_in_step_and_are_damaged_no_further(shape: tuple[int, int]) -> None:
    """Also where the small picture of odd sizes was rounded down or up."""
    large = np.random.default_rng(0).integers(0, 256, (303, 282, 3), np.uint8)
    low = np.zeros((*shape, 3), np.uint8)
    low[:75, :70] = large[:300:4, :280:4]
    one = paired_example("pair", large, low, scale=4)
    assert one.low.shape == (MAX_LOW_PX, MAX_LOW_PX, 3)
    assert np.array_equal(one.low, one.truth[::4, ::4])


def test_photo_damage_is_harsher_than_bicubic_and_the_same_every_time() -> None:
    photo = replace(CONFIG, degradation="photo")
    one, again, other = (degraded_example("x", drawn(128, 128), photo, number=n) for n in (0, 0, 1))
    assert np.array_equal(one.low, again.low)
    assert not np.array_equal(one.low, other.low)
    assert np.array_equal(one.truth, other.truth)
    assert (
        Validator([one], photo).bicubic.figures[PSNR_Y]
        < Validator([degraded_example("x", drawn(128, 128), CONFIG, number=0)], CONFIG).bicubic.figures[PSNR_Y]
    )


def test_the_best_weights_are_those_with_the_lowest_lpips_where_it_is_installed() -> None:
    plain = [valid_row(4, 25.0, 0.8, None), valid_row(1, 27.0, 0.9, None)]
    assert score_of(plain) == 27.0
    textured = [valid_row(4, 25.0, 0.8, 0.2), valid_row(1, 27.0, 0.9, 0.4)]
    assert score_of(textured) == pytest.approx(-0.3)
    assert score_of([valid_row(row.steps, 25.0, 0.8, 0.1) for row in plain]) > score_of(textured)


def test_a_metric_that_is_watched_is_measured_logged_and_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its entry in the table alone."""
    mean = lambda found: float(found.image[0].mean())  # noqa: E731
    reds = Metric("reds", "reds", "", 1, "lower", 0.1, "mean of red", mean, watched=True)
    monkeypatch.setitem(metrics.METRICS, reds.key, reds)
    monkeypatch.setattr(metrics, "WATCHED", (*metrics.WATCHED, reds))
    validator = open_validation(folder, CONFIG, tmp_path)
    found = validator(knowing(validator.examples), 7)
    wanted = fmean(float(image[..., 0].mean()) for image in validator.bicubic_images)
    assert found.bicubic.figures[reds] == pytest.approx(wanted)
    with closing(TrainLog(tmp_path, from_step=0)) as log:
        log.validation(found)
    (line,) = read_lines(tmp_path / VALIDATIONS)
    assert line["bicubic"]["reds"] == pytest.approx(wanted)
    assert "reds, lower is better" in dict(curves._validation_panels([line]))


def test_lpips_is_the_mean_over_the_pictures(validator: Validator) -> None:
    distances = iter([0.1, 0.2, 0.6])
    validator.perceptual = lambda _image, _truth: {"lpips_alex": next(distances)}  # type: ignore[assignment]
    assert validator.row(1, validator.bicubic_images).figures[LPIPS_ALEX] == pytest.approx(0.3)


def test_the_samples_show_the_pictures(validator: Validator, tmp_path: Path) -> None:
    denoiser = knowing(validator.examples)
    validator(denoiser, 500)
    sheet = np.asarray(Image.open(tmp_path / "samples" / "step-000500.png"))
    images = validator.enlarged(denoiser)
    columns = [
        [blown_up(one.low, 4) for one in validator.examples],
        validator.bicubic_images,
        images[1],
        images[3],
        [one.truth for one in validator.examples],
    ]
    assert sheet.shape == (CAPTION_PX + GAP_PX * 4 + 72 + 76 + 80, GAP_PX * 6 + 80 * 5, 3)
    for number, pictures in enumerate(columns):
        left = GAP_PX + number * (80 + GAP_PX)
        top = CAPTION_PX + GAP_PX
        for picture in pictures:
            height, width = picture.shape[:2]
            assert np.array_equal(sheet[top : top + height, left : left + width], picture)
            top += height + GAP_PX
        assert (sheet[:CAPTION_PX, left : left + 80] < 128).any(), "no caption"


def test_the_samples_show_four_pictures_at_most(tmp_path: Path) -> None:
    examples = [degraded_example(str(n), drawn(40, 40, n), CONFIG, number=n) for n in range(6)]
    validator = Validator(examples, CONFIG, tmp_path)
    validator(knowing(validator.examples), 1)
    with Image.open(tmp_path / "samples" / "step-000001.png") as sheet:
        assert sheet.height == CAPTION_PX + GAP_PX + 4 * (40 + GAP_PX)


def test_without_a_place_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    validator = Validator([degraded_example("x", drawn(), CONFIG, number=0)], CONFIG)
    validator(knowing(validator.examples), 1)
    assert not list(tmp_path.iterdir())


def test_samples_that_cannot_be_written_are_named(validator: Validator, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("in the way")
    with pytest.raises(OutputError, match="samples"):
        validator(knowing(validator.examples), 1)


def test_a_column_is_as_wide_as_its_caption() -> None:
    small = np.zeros((8, 8, 3), np.uint8)
    one, other = Column("a caption wider than its picture", [small]), Column("b", [small])
    sheet = np.asarray(Image.open(BytesIO(sample_grid([one, other]))))
    dark = (sheet[CAPTION_PX + GAP_PX : CAPTION_PX + GAP_PX + 8] == 0).all(axis=(0, 2)).nonzero()[0]
    assert len(dark) == 16
    assert dark[8] > 120
