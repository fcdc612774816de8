"""The engine: any size and kind of picture, tiles that do not show, lack of memory, values that are no numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamsr.core.denoiser import Condition
from dreamsr.core.device import Compute
from dreamsr.core.model import build_denoiser
from dreamsr.core.parametrisation import Parametrisation
from dreamsr.core.tiles import OVERLAP_PX, windows
from dreamsr.errors import DeviceError, UsageError
from dreamsr.measure.consistency import consistency_db
from dreamsr.pictures.lanczos import resized, resized_strips
from dreamsr.pictures.picture import Picture
from dreamsr.upscaling import tiled
from dreamsr.upscaling.nets import FALLBACK_STEPS
from dreamsr.upscaling.settings import SMALLEST_TILE_PX, Progress, Settings
from dreamsr.upscaling.upscaler import Upscaler
from tests.upscaling.stand_ins import take

ONE_STEP = Settings(steps=1)
Shape = tuple[int, int, int]


def picture(shape: Shape, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Smooth shapes with some detail, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((max(2, shape[0] // 8), max(2, shape[1] // 8), shape[2]))
    smooth = resized((coarse * 60000).astype(np.uint16), shape[0], shape[1])
    peak = np.iinfo(dtype).max
    return np.clip(smooth / 65535 * peak + rng.normal(0, 0.02 * peak, shape), 0, peak).astype(dtype)


@pytest.mark.parametrize("scale", [1.3, 2, 4, 5.5, 16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (2, 1, 3), (1, 40, 3), (7, 5, 1), (19, 23, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_size_gives_the_right_size(tiny_upscaler: Upscaler, scale: float, shape: Shape, dtype: type) -> None:
    height, width = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    result = tiny_upscaler.enlarge(picture(shape, dtype), height, width, ONE_STEP)
    assert result.shape == (height, width, shape[2])
    assert result.dtype == dtype


@pytest.mark.parametrize("target", [(40, 200), (100, 50), (41, 123)])
def test_both_sides_may_grow_by_different_factors(tiny_upscaler: Upscaler, target: tuple[int, int]) -> None:
    assert tiny_upscaler.enlarge(picture((25, 30, 3)), *target, ONE_STEP).shape == (*target, 3)


@pytest.mark.parametrize("scale", [2, 2.5, 4, 6.3, 10])
def test_the_picture_does_not_move(tiny_upscaler: Upscaler, scale: float) -> None:
    """Shrinking the result gives the input again, for one net, for chains, and with a last resize."""
    small = picture((40, 52, 3))
    height, width = round(40 * scale), round(52 * scale)
    result = tiny_upscaler.enlarge(small, height, width, ONE_STEP)
    assert consistency_db(result, small) > 38


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_flat_colour_stays_flat(tiny_upscaler: Upscaler, value: int) -> None:
    flat = np.full((30, 20, 3), value, np.uint8)
    assert (tiny_upscaler.enlarge(flat, 90, 60, ONE_STEP) == value).all()


def test_a_flat_colour_among_others_keeps_its_mean(tiny_upscaler: Upscaler) -> None:
    half = np.full((60, 120, 3), 90, np.uint8)
    half[:, 60:] = 200
    result = tiny_upscaler.enlarge(half, 240, 480, ONE_STEP)
    assert abs(result[:, :200].mean() - 90) < 1
    assert abs(result[:, 280:].mean() - 200) < 1


def test_grey_has_one_channel_and_equals_grey_in_colour(tiny_upscaler: Upscaler) -> None:
    grey = picture((30, 30, 1)) // 4 + 96  # far from black and white, where each channel would be cut alone
    one = tiny_upscaler.enlarge(grey, 120, 120, ONE_STEP)
    three = tiny_upscaler.enlarge(np.repeat(grey, 3, axis=2), 120, 120, ONE_STEP)
    assert np.abs(one.astype(int) - three.mean(axis=2, keepdims=True)).max() <= 1


def test_sixteen_bits_carry_more_than_eight(tiny_upscaler: Upscaler) -> None:
    deep = picture((24, 24, 3), np.uint16)
    result = tiny_upscaler.enlarge(deep, 96, 96, ONE_STEP)
    assert len(np.unique(result % 257)) > 100
    shallow = tiny_upscaler.enlarge((deep // 257).astype(np.uint8), 96, 96, ONE_STEP)
    assert np.abs(result / 257 - shallow).mean() < 1.5


# --- reproducibility --------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_others(tiny_upscaler: Upscaler) -> None:
    small = picture((30, 40, 3))
    results = [tiny_upscaler.enlarge(small, 120, 160, Settings(steps=3, seed=seed)) for seed in (4, 4, 5)]
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


def test_what_came_before_does_not_matter(tiny_upscaler: Upscaler, tiny_weights: Path) -> None:
    small = picture((30, 40, 3))
    first = Upscaler(tiny_weights, "cpu", precision="fp32").enlarge(small, 120, 160, ONE_STEP)
    tiny_upscaler.enlarge(picture((50, 20, 3), seed=9), 200, 80, Settings(steps=2, seed=7))
    assert (tiny_upscaler.enlarge(small, 120, 160, ONE_STEP) == first).all()


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_any_number_of_steps(tiny_upscaler: Upscaler, steps: int) -> None:
    heard: list[Progress] = []
    settings = Settings(steps=steps, stochasticity=0.5)
    tiny_upscaler.enlarge(picture((20, 20, 3)), 80, 80, settings, on_progress=heard.append)
    assert [progress.done for progress in heard] == list(range(1, steps + 2))
    assert heard[-1].fraction == 1


def test_more_steps_than_the_process_has_are_refused(tiny_upscaler: Upscaler) -> None:
    with pytest.raises(UsageError, match=r"1\.\.1000"):
        tiny_upscaler.enlarge(picture((5, 5, 3)), 10, 10, Settings(steps=1001))


def test_fidelity_goes_from_many_steps_to_the_first(tiny_upscaler: Upscaler) -> None:
    small = picture((30, 30, 3))

    def run(fidelity: float) -> np.ndarray:
        return tiny_upscaler.enlarge(small, 120, 120, Settings(steps=4, fidelity=fidelity)).astype(float)

    texture, half, faithful = run(0), run(0.5), run(1)
    assert np.abs(texture - faithful).max() > 1
    assert np.abs(half - (texture + faithful) / 2).max() <= 1.5


def test_matching_holds_the_low_frequencies(tiny_upscaler: Upscaler) -> None:
    small = picture((48, 48, 3))
    free = tiny_upscaler.enlarge(small, 192, 192, Settings(steps=1, match=False))
    held = tiny_upscaler.enlarge(small, 192, 192, Settings(steps=1))
    assert consistency_db(held, small) > max(40, consistency_db(free, small))


def test_consistency_is_high_for_the_same_and_low_for_another() -> None:
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert consistency_db(np.full((32, 32, 3), 77, np.uint8), flat) > 100
    assert consistency_db(np.full((32, 32, 3), 87, np.uint8), flat) == pytest.approx(20 * math.log10(25.5), abs=1e-3)


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"seed": -1}, {"fidelity": 1.1}, {"fidelity": float("nan")}, {"tile_px": 71}]
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Settings(**values)  # type: ignore[arg-type]


# --- tiles ------------------------------------------------------------------------------------------------------------


def test_tiled_and_whole_agree(tiny_upscaler: Upscaler) -> None:
    small = picture((90, 130, 3))
    whole = tiny_upscaler.enlarge(small, 360, 520, Settings(steps=2, tile_px=512)).astype(float)
    pieces = tiny_upscaler.enlarge(small, 360, 520, Settings(steps=2, tile_px=SMALLEST_TILE_PX)).astype(float)
    assert np.abs(whole - pieces).mean() < 0.05  # in steps of 1/255: twenty times better than promised


def test_no_seam_shows_on_a_gradient(tiny_upscaler: Upscaler) -> None:
    """The energy of gradients on tile lines is within 2 % of elsewhere, on a plain ramp, which shows seams worst."""
    ramp = np.linspace(0, 65535, 210)[None, :, None] * np.linspace(0.5, 1, 300)[:, None, None]
    small = np.repeat(ramp, 3, axis=2).astype(np.uint16)
    result = tiny_upscaler.enlarge(small, 1200, 840, Settings(steps=2, tile_px=104)).astype(float) / 65535
    for axis in (0, 1):
        energy = np.square(np.diff(result, axis=axis)).mean(axis=(1 - axis, 2))
        size = small.shape[axis]
        lines = [4 * (window.start + OVERLAP_PX // 2) for window in windows(size, 104)[1:]]
        near = np.zeros(len(energy), bool)
        for line in lines:
            near[line - 16 : line + 16] = True
        inner = slice(64, -64)
        assert len(lines) >= 2
        assert energy[inner][near[inner]].mean() == pytest.approx(energy[inner][~near[inner]].mean(), rel=0.02)


def test_running_out_of_memory_halves_the_tile(tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    small = picture((160, 160, 3))
    whole = tiny_upscaler.enlarge(small, 640, 640, Settings(steps=1, tile_px=80))
    sizes: list[int] = []
    inner = tiled.TiledRun._tile

    def scarce(self: tiled.TiledRun, denoiser: object, low: Tensor, *rest: object) -> Tensor:
        sizes.append(low.shape[-1])
        if low.shape[-1] > 80:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return inner(self, denoiser, low, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tiled.TiledRun, "_tile", scarce)
    result = tiny_upscaler.enlarge(small, 640, 640, Settings(steps=1, tile_px=160))
    assert sizes[0] == 160
    assert sizes[1] == 80
    assert (result == whole).all()


def test_out_of_memory_with_the_smallest_tile_says_so(tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(tiled.TiledRun, "_tile", never)
    with pytest.raises(DeviceError, match="out of memory on cpu even with tiles of 80 px"):
        tiny_upscaler.enlarge(picture((160, 160, 3)), 640, 640, ONE_STEP)


def test_other_errors_are_not_taken_for_lack_of_memory(
    tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(tiled.TiledRun, "_tile", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        tiny_upscaler.enlarge(picture((9, 9, 3)), 36, 36, ONE_STEP)


def test_a_result_larger_than_memory_is_refused_at_once(
    tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamsr.measure.memory.free_bytes", lambda _: 10_000)
    with pytest.raises(DeviceError, match="a result of 400x400 needs"):
        tiny_upscaler.enlarge(picture((100, 100, 3)), 400, 400, ONE_STEP)


# --- values that are no numbers ---------------------------------------------------------------------------------------


class Overflowing(torch.nn.Module):
    """A net whose last layer overflows in every dtype of `bad`."""

    def __init__(self, inner: torch.nn.Module, bad: set[torch.dtype], value: float) -> None:
        super().__init__()
        self.inner, self.bad, self.value = inner, bad, value

    def encode(self, low: Tensor, _scale: Fraction | None = None) -> Condition:
        condition: Condition = self.inner.encode(low)  # type: ignore[operator]
        return condition

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        out: Tensor = self.inner(x_t, condition, level)
        fast = torch.is_autocast_enabled("cpu")
        if (torch.bfloat16 if fast else torch.float32) in self.bad:
            out = out.clone()
            out[..., 0, 0] = self.value
        return out


@pytest.mark.parametrize("parametrisation", ["plain", "centred"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_no_numbers_are_computed_again_in_float32(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, value: float, parametrisation: Parametrisation
) -> None:
    upscaler, precise = (Upscaler(tiny_weights, "cpu", precision=kind) for kind in ("bf16", "fp32"))
    config = replace(upscaler.weights.config, parametrisation=parametrisation)
    net = Overflowing(upscaler.denoiser.net, {torch.bfloat16}, value)
    fast = Compute(torch.device("cpu"), torch.bfloat16, "test")
    take(monkeypatch, upscaler, build_denoiser(config, net, compute=fast))
    take(monkeypatch, precise, build_denoiser(config, precise.denoiser.net, compute=precise.compute))
    small = picture((20, 20, 3))
    assert (upscaler.enlarge(small, 80, 80, ONE_STEP) == precise.enlarge(small, 80, 80, ONE_STEP)).all()


@pytest.mark.parametrize("parametrisation", ["plain", "centred"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_weights_that_give_no_numbers_at_all_are_refused(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, value: float, parametrisation: Parametrisation
) -> None:
    upscaler = Upscaler(tiny_weights, "cpu", precision="fp32")
    config = replace(upscaler.weights.config, parametrisation=parametrisation)
    net = Overflowing(upscaler.denoiser.net, {torch.bfloat16, torch.float32}, value)
    take(monkeypatch, upscaler, build_denoiser(config, net, compute=upscaler.compute))
    with pytest.raises(DeviceError, match="not numbers"):
        upscaler.enlarge(picture((9, 9, 3)), 36, 36, ONE_STEP)


# --- transparency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_halo_around_a_shape_on_hidden_magenta(tiny_upscaler: Upscaler, dtype: type) -> None:
    peak = np.iinfo(dtype).max
    pixels = np.full((48, 48, 3), (peak, 0, peak), dtype)
    alpha = np.zeros((48, 48), dtype)
    pixels[12:36, 12:36], alpha[12:36, 12:36] = peak // 2, peak
    pixels[12, 12] += 1  # not one flat colour
    result = tiny_upscaler.enlarge_picture(Picture(pixels, alpha), 192, 192, ONE_STEP)
    assert result.alpha is not None
    visible = result.alpha > 0
    assert np.abs(result.pixels[visible].astype(int) - peak // 2).max() < 0.2 * peak  # magenta is 0.5 away
    assert (result.alpha[64:128, 64:128] == peak).all()
    assert (result.alpha[:32] == 0).all()
    assert (result.alpha[:, -32:] == 0).all()


def test_no_rim_around_an_opaque_disc_on_a_faint_white(tiny_upscaler: Upscaler) -> None:
    y, x = np.mgrid[0:48, 0:48]
    disc = np.hypot(y - 24, x - 24) < 14
    pixels = np.where(disc[..., None], (200, 0, 0), 255).astype(np.uint8)
    alpha = np.where(disc, 255, 8).astype(np.uint8)
    result = tiny_upscaler.enlarge_picture(Picture(pixels, alpha), 192, 192, ONE_STEP)
    assert result.alpha is not None
    green_on_black = result.pixels[..., 1] * (result.alpha / 255.0)
    assert green_on_black.max() < 24  # 8 is the veil itself
    assert (result.alpha[:20, :20] == 8).all()
    assert (result.alpha[80:112, 80:112] == 255).all()


def test_opaque_pictures_are_enlarged_as_without_alpha(tiny_upscaler: Upscaler) -> None:
    pixels = picture((12, 9, 3))
    plain = tiny_upscaler.enlarge_picture(Picture(pixels), 48, 36, ONE_STEP)
    opaque = tiny_upscaler.enlarge_picture(Picture(pixels, np.full((12, 9), 255, np.uint8)), 48, 36, ONE_STEP)
    assert (opaque.pixels == plain.pixels).all()
    assert opaque.alpha is not None
    assert (opaque.alpha == 255).all()


def test_metadata_and_format_travel_along(tiny_upscaler: Upscaler) -> None:
    given = Picture(picture((6, 6, 3)), format="JPEG")
    given = replace(given, metadata=replace(given.metadata, xmp=b"<x/>"))
    result = tiny_upscaler.enlarge_picture(given, 12, 12, ONE_STEP)
    assert (result.metadata, result.format, result.alpha) == (given.metadata, "JPEG", None)


def test_weights_without_a_recommendation_take_four_steps(tiny_upscaler: Upscaler) -> None:
    assert tiny_upscaler.default_steps == 2
    for facts in ({}, {"default_steps": "many"}, {"default_steps": -1}):
        weights = replace(tiny_upscaler.weights, facts=facts)
        assert replace(tiny_upscaler.nets.largest, weights=weights).default_steps == FALLBACK_STEPS


# --- strips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 2.7, 4, 6.3])
def test_strips_are_the_picture(tiny_upscaler: Upscaler, scale: float) -> None:
    """Rows come one tile after the other, with alpha and metadata, and make what is given at once."""
    alpha = np.linspace(0, 255, 200).astype(np.uint8)[:, None].repeat(90, axis=1)
    small = Picture(picture((200, 90, 3)), alpha, format="PNG")
    settings, target = Settings(steps=1, tile_px=80), (round(200 * scale), round(90 * scale))
    strips = list(tiny_upscaler.enlarge_strips(small, *target, settings))
    whole = tiny_upscaler.enlarge_picture(small, *target, settings)
    assert len(strips) > 2
    assert {(strip.width, strip.format) for strip in strips} == {(target[1], "PNG")}
    assert (np.concatenate([strip.pixels for strip in strips]) == whole.pixels).all()
    assert whole.pixels.shape[:2] == target
    assert whole.alpha is not None
    assert (np.concatenate([strip.alpha for strip in strips if strip.alpha is not None]) == whole.alpha).all()


def test_the_first_strip_needs_the_first_tiles_alone(tiny_upscaler: Upscaler) -> None:
    heard: list[Progress] = []
    strips = tiny_upscaler.enlarge_strips(
        Picture(picture((400, 60, 3))), 1600, 240, Settings(steps=1, tile_px=80), on_progress=heard.append
    )
    next(strips)
    assert 0 < heard[-1].fraction < 0.2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("height", [31, 150, 299, 640])
@pytest.mark.parametrize("parts", [[300], [1] * 300, [7, 200, 93], [290, 10]], ids=str)
def test_resizing_strips_is_resizing(parts: list[int], height: int, dtype: type) -> None:
    image = picture((300, 40, 3), dtype)
    ends = np.cumsum([0, *parts])
    pieces = (image[top:end] for top, end in itertools.pairwise(ends))
    box = (298.5, 39.25)
    whole = resized(image, height, 33, box=(0.0, 0.0, box[1], box[0]))
    strips = list(resized_strips(pieces, height, 33, box=box))
    result = np.concatenate(strips)
    assert result.shape == whole.shape
    assert np.abs(result.astype(int) - whole).max() <= 1  # where the sum of the taps is just a half
    assert (result != whole).mean() < (0.001 if dtype == np.uint8 else 0.05)
