"""The measures: known values, invariants, and mistakes that must change the figure."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dreamsr
from dreamsr.core import resize
from dreamsr.measure import metrics
from dreamsr.measure.metrics import Comparison
from dreamsr.measure.score import mean_of, means, score


def picture(seed: int = 0, height: int = 64, width: int = 72) -> Tensor:
    """Smooth colours with some texture, [3,H,W] on whole grey levels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, height // 8, width // 8, generator=generator, dtype=torch.float64) * 255
    image = resize.resize(coarse, height, width) + 6 * torch.randn(
        3, height, width, generator=generator, dtype=torch.float64
    )
    return metrics.to_grey_levels(image)


def test_luma_of_black_white_and_the_primaries_is_that_of_matlab() -> None:
    colours = {(0, 0, 0): 16, (255, 255, 255): 235, (255, 0, 0): 81.481, (0, 255, 0): 144.553, (0, 0, 255): 40.966}
    for rgb, expected in colours.items():
        image = torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)
        assert float(metrics.luma(image)) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_a_constant_error_is_the_closed_form() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.float64)
    assert metrics.psnr(image + 5, image) == pytest.approx(10 * math.log10(255**2 / 25))
    assert metrics.psnr(image, image) == math.inf


def test_ssim_is_one_for_equal_planes_and_the_closed_form_for_constants() -> None:
    plane = metrics.luma(picture())
    assert metrics.ssim(plane, plane) == pytest.approx(1, abs=1e-12)
    a, b, c1 = 100.0, 120.0, (0.01 * 255) ** 2
    flat = torch.full((16, 16), a, dtype=torch.float64)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metrics.ssim(flat, torch.full_like(flat, b)) == pytest.approx(expected, abs=1e-9)


def test_ssim_equals_the_definition_written_out_window_by_window() -> None:
    a, b = metrics.luma(picture(1, 24, 24)).numpy(), metrics.luma(picture(2, 24, 24)).numpy()
    axis = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(axis, axis) / axis.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(24 - 10):
        for left in range(24 - 10):
            x, y = (plane[top : top + 11, left : left + 11] for plane in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert metrics.ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(np.mean(values), abs=1e-10)


def test_ssim_agrees_with_scikit_image() -> None:
    structural = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = metrics.luma(picture(1)).numpy(), metrics.luma(picture(3)).numpy()
    _, whole = structural(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert metrics.ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(whole[5:-5, 5:-5].mean(), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 40))
def test_more_noise_is_never_measured_as_better(seed: int, strength: int) -> None:
    truth = picture(seed % 100)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weaker, stronger = (truth + s * noise for s in (strength, strength + 1))
    assert metrics.psnr(stronger, truth) < metrics.psnr(weaker, truth) or strength == 0
    assert metrics.psnr(truth + noise, truth) == pytest.approx(metrics.psnr(truth, truth + noise))


def test_shave_takes_the_border_and_refuses_to_take_everything() -> None:
    image = picture()
    assert metrics.shave(image, 4).shape == (3, 56, 64)
    assert torch.equal(metrics.shave(image, 0), image)
    with pytest.raises(ValueError, match="no inside"):
        metrics.shave(image, 32)


def test_planes_and_pixels_are_inverse_and_halves_round_up() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(metrics.as_pixels(metrics.planes(pixels)), pixels)
    values = torch.tensor([-3.0, 0.5, 1.5, 254.5, 300.0], dtype=torch.float64)
    assert metrics.to_grey_levels(values).tolist() == [0, 1, 2, 255, 255]


def test_low_psnr_is_high_for_what_shrinks_to_the_input_and_low_for_another_picture() -> None:
    truth = picture()
    low = resize.shrink_8_bit(truth, 4)
    assert metrics.low_psnr(truth, low, 4) == math.inf
    assert metrics.low_psnr(picture(5), low, 4) < 20


def test_colour_error_sees_a_tint_but_not_noise() -> None:
    truth = picture()
    tint = torch.tensor([4.0, 0.0, -2.0], dtype=torch.float64).view(3, 1, 1)
    assert metrics.colour_error(truth + tint, truth) == pytest.approx(2.0)
    noise = 10 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.colour_error(truth + noise, truth) < 1


# --- sabotage ---------------------------------------------------------------------------------------------------------


def measures(image: Tensor, truth: Tensor, border_px: int = 4) -> tuple[float, float, float]:
    image, truth = metrics.shave(image, border_px), metrics.shave(truth, border_px)
    a, b = metrics.luma(image), metrics.luma(truth)
    return metrics.psnr(a, b), metrics.ssim(a, b), metrics.psnr(image, truth)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    truth = picture()
    return metrics.to_grey_levels(resize.enlarge(resize.shrink(truth, 4), 4)), truth


def test_swapped_channels_lower_every_figure(pair: tuple[Tensor, Tensor]) -> None:
    good, bad = measures(*pair), measures(pair[0].flip(0), pair[1])
    assert bad[0] < good[0] - 1
    assert bad[1] < good[1]
    assert bad[2] < good[2] - 3
    assert metrics.colour_error(pair[0].flip(0), pair[1]) > 10 * metrics.colour_error(*pair)


def test_a_shift_by_one_pixel_lowers_every_figure(pair: tuple[Tensor, Tensor]) -> None:
    shifted = pair[0].roll(1, dims=-1)
    assert all(bad < good for bad, good in zip(measures(shifted, pair[1]), measures(*pair), strict=True))


def test_full_range_luma_reads_lower_by_the_known_amount(pair: tuple[Tensor, Tensor]) -> None:
    image, truth = (metrics.shave(one, 4) for one in pair)
    full = [torch.einsum("chw,c->hw", one, torch.tensor([0.299, 0.587, 0.114]).double()) for one in (image, truth)]
    lost = metrics.psnr(metrics.luma(image), metrics.luma(truth)) - metrics.psnr(*full)
    assert lost == pytest.approx(20 * math.log10(255 / 219), abs=0.01)


def test_an_unshaved_border_changes_the_figure(pair: tuple[Tensor, Tensor]) -> None:
    image, truth = pair[0].clone(), pair[1]
    image[:, :4] = 0
    assert measures(image, truth, 4) == measures(pair[0], truth, 4)
    assert measures(image, truth, 0)[0] < measures(image, truth, 4)[0] - 5


def test_every_metric_is_named_in_its_table_alone() -> None:
    """A key, a title with its unit, or a number of decimals that stands elsewhere is a second table."""
    root = Path(dreamsr.__file__).parent
    table = root / "measure/metrics.py"
    names = set(metrics.METRICS) | {m.label for m in metrics.METRICS.values() if m.unit}
    found = [
        f"{path.relative_to(root)}:{node.lineno} {node.value!r}"
        for path in root.rglob("*.py")
        if path != table
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []
    assert sum(f'"{key}"' in table.read_text(encoding="utf-8") for key in metrics.METRICS) == len(metrics.METRICS)


def test_metrics_say_how_they_are_read() -> None:
    assert [(m.heading, m.text(0.12345)) for m in (metrics.PSNR_Y, metrics.LPIPS_ALEX)] == [
        ("PSNR-Y dB ↑", "0.12"),
        ("LPIPS ↓", "0.1235"),
    ]
    assert metrics.SSIM_Y.label == "SSIM-Y"
    assert metrics.SSIM_Y.text(None) == ""


def compared(image: Tensor, truth: Tensor) -> Comparison:
    return Comparison.of(metrics.as_pixels(image), metrics.as_pixels(truth), resize.shrink(truth, 4), 4)


def test_a_score_is_what_the_formulas_say_and_best_for_the_truth() -> None:
    image, truth = picture(1), picture(2)
    found = score(compared(image, truth), lambda *_: {"lpips_vgg": 0.5, "strange": 1.0})
    assert list(found) == list(metrics.REPORTED)
    luma = [metrics.shave(metrics.luma(one), 4) for one in (image, truth)]
    assert found["psnr_y"] == metrics.psnr(*luma)
    assert found["ssim_y"] == metrics.ssim(*luma)
    assert found["colour_error"] == metrics.colour_error(image, truth)
    assert found["lpips_vgg"] == 0.5
    assert found["lpips_alex"] is None
    best = score(compared(truth, truth), lambda *_: {}, metrics.METRICS.values())
    worse = score(compared(image, truth), lambda *_: {}, metrics.METRICS.values())
    for key, metric in metrics.METRICS.items():
        if metric.compute is not None:
            ours, theirs = best[key], worse[key]
            assert ours is not None
            assert theirs is not None
            assert ours < theirs if metric.lower_is_better else ours > theirs


def test_only_luma_gives_only_what_luma_needs() -> None:
    both = compared(picture(1), picture(2))
    found = score(replace(both, pixels=None), lambda *_: {"lpips_alex": 0.1})
    assert {key for key, value in found.items() if value is not None} == {"psnr_y", "ssim_y"}


def test_a_mean_over_some_pictures_is_none() -> None:
    assert means([{"a": 1.0, "b": None}, {"a": 2.0, "b": 3.0}]) == {"a": 1.5, "b": None}
    assert mean_of([]) is None
    assert mean_of([math.inf, 1.0]) == math.inf
