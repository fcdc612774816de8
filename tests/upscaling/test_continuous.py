"""A continuous net in the engine: any factor in one pass, on whole pixels, whatever the size and the tiles."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamsr.core import resize
from dreamsr.core.backbones.idm import IDMConfig
from dreamsr.core.denoiser import Condition
from dreamsr.core.model import ModelConfig, build_denoiser
from dreamsr.core.pixels import from_tensor, to_tensor
from dreamsr.errors import DeviceError
from dreamsr.measure.consistency import consistency_db
from dreamsr.pictures.lanczos import resized
from dreamsr.upscaling import tiled
from dreamsr.upscaling.settings import Progress, Settings
from dreamsr.upscaling.sizes import Size
from dreamsr.upscaling.upscaler import Upscaler
from tests.conftest import write_tiny_weights
from tests.upscaling.stand_ins import take

TINY_IDM = ModelConfig(
    backbone="idm",
    sizes=IDMConfig(
        encoder_channels=4,
        encoder_blocks=1,
        channels=4,
        multipliers=(1, 2),
        blocks_per_level=1,
        attention_levels=(),
        query_width=8,
        groups=2,
    ),
)
FREE = Settings(steps=1, match=False)
FACTOR = Fraction(37, 10)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth shapes of 16 bits, as photographs have."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(9000, 56000, (height // 8 + 2, width // 8 + 2, channels)).astype(np.uint16)
    return resized(coarse, height, width)


class Bicubic(torch.nn.Module):
    """A continuous net that returns its base, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.factors: list[Fraction | None] = []
        self.calls = 0

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        assert scale is not None
        self.factors.append(scale)
        return Condition(resize.enlarge(low, scale))

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:  # noqa: ARG002
        self.calls += 1
        return condition.y


@pytest.fixture(scope="module")
def idm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of an IDM of up to x4 with random parameters."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny-idm.safetensors", TINY_IDM)


@pytest.fixture(scope="module")
def idm(idm_weights: Path) -> Upscaler:
    """These weights, loaded on the CPU in float32."""
    return Upscaler(idm_weights, "cpu", precision="fp32")


@pytest.fixture
def net() -> Bicubic:
    return Bicubic()


@pytest.fixture
def upscaler(idm_weights: Path, net: Bicubic, monkeypatch: pytest.MonkeyPatch) -> Upscaler:
    """The engine with `net` in the place of IDM."""
    upscaler = Upscaler(idm_weights, "cpu", precision="fp32")
    denoiser = build_denoiser(upscaler.weights.config, net, compute=upscaler.compute)
    take(monkeypatch, upscaler, denoiser)
    return upscaler


def enlarge(upscaler: Upscaler, small: np.ndarray, scale: float, settings: Settings = FREE) -> np.ndarray:
    height, width = Size(scale=scale).of(*small.shape[:2])
    return upscaler.enlarge(small, height, width, settings)


# One pass


@pytest.mark.parametrize("scale", [1.025, 1.5, 2, 2.25, 3.7, 4])
@pytest.mark.parametrize("size", [(41, 53), (40, 3), (97, 60)])
def test_one_pass_at_exactly_the_factor(upscaler: Upscaler, net: Bicubic, size: tuple[int, int], scale: float) -> None:
    result = upscaler(picture(*size), scale, steps=3, tile=512)
    assert result.shape == (int(scale * size[0] + 0.5), int(scale * size[1] + 0.5), 3)
    assert net.factors == [Fraction(scale).limit_denominator(40)]
    assert net.calls == 3


def test_a_longer_way_is_a_chain_that_ends_with_what_is_left(upscaler: Upscaler, net: Bicubic) -> None:
    assert enlarge(upscaler, picture(20, 30), 6).shape == (120, 180, 3)
    assert net.factors == [4, Fraction(3, 2)]


def test_nothing_is_resized_between_the_nets_of_a_chain(upscaler: Upscaler) -> None:
    """84x132 px, after the first net, times 1.525 are 128.1x201.3: the fractions are cut away, not squeezed in."""
    small = picture(21, 33)
    result = upscaler.enlarge(small, 128, 201, FREE)
    middle = from_tensor(resize.enlarge(to_tensor(small), 4), np.uint16)
    whole = from_tensor(resize.enlarge(to_tensor(middle), Fraction(61, 40)), np.uint16)
    assert np.abs(result.astype(int) - whole[:128, :201].astype(int))[:-2, :-2].max() <= 1


@pytest.mark.parametrize(("target", "factor"), [((61, 100), "5/2"), ((60, 101), "2.525"), ((47, 40), "1.9")])
def test_other_targets_take_the_next_factor_and_one_resize(
    upscaler: Upscaler, net: Bicubic, target: tuple[int, int], factor: str
) -> None:
    """Of 25x40: no one factor gives these sides."""
    small = picture(25, 40)
    result = upscaler.enlarge(small, *target, Settings(steps=1))
    assert result.shape == (*target, 3)
    assert net.factors == [Fraction(factor)]
    assert consistency_db(result, small) > 40


def test_a_fixed_net_is_asked_for_its_own_scale_alone(tiny_upscaler: Upscaler) -> None:
    assert not tiny_upscaler.continuous
    assert enlarge(tiny_upscaler, picture(9, 8), 3.7).shape == (33, 30, 3)


# On whole pixels


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (2, 43), (7, 50), (40, 41), (60, 70), (119, 120), (121, 161), (130, 290)]
)
@pytest.mark.parametrize("tile", [72, 120, 4000])
def test_a_net_that_returns_its_base_gives_matlab_s_imresize(
    upscaler: Upscaler, net: Bicubic, size: tuple[int, int], tile: int
) -> None:
    """Tiled or whole. Where the picture is padded, what lies beyond its edge differs within one small pixel of it."""
    small = picture(*size)
    result = enlarge(upscaler, small, 3.7, Settings(steps=1, match=False, tile_px=tile))
    if max(size) >= 40:
        assert set(net.factors) == {FACTOR}
    factor = (net.factors or [FACTOR])[0]  # a flat picture needs no net
    assert factor is not None
    whole = from_tensor(resize.enlarge(to_tensor(small), factor), np.uint16)[: result.shape[0], : result.shape[1]]
    assert result.shape == whole.shape
    padded = [n % factor.denominator > 0 for n in size]
    inside = tuple(slice(None, -4 if pad and n > 1 else None) for pad, n in zip(padded, size, strict=True))
    difference = np.abs(result.astype(int) - whole.astype(int))
    assert difference[inside].max() <= 1
    # There it is the outermost of four taps, of weight 2/27 at most, that meets the last pixel instead of the one
    # before, and it does so along both sides.
    steepest = max(np.abs(np.diff(small.astype(int), axis=axis)).max(initial=0) for axis in (0, 1))
    assert difference.max() <= 0.2 * steepest + 1


@pytest.mark.parametrize("scale", [1.5, 3.7])
def test_every_tile_sees_the_noise_of_its_place(
    upscaler: Upscaler, net: Bicubic, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """A net that returns what it sees shows the noise: blended tiles agree with the whole."""
    monkeypatch.setattr(net, "forward", lambda x_t, _condition, _level: x_t)
    small = picture(90, 170)
    whole, pieces = (enlarge(upscaler, small, scale, replace(FREE, tile_px=tile)) for tile in (512, 120))
    assert len(net.factors) > 2
    assert np.abs(whole.astype(int) - pieces.astype(int)).max() <= 1
    base = from_tensor(resize.enlarge(to_tensor(small), Fraction(scale).limit_denominator(40)), np.uint16)
    assert np.abs(whole.astype(int) - base.astype(int)).std() > 1000


def test_grey_stays_grey(upscaler: Upscaler) -> None:
    assert enlarge(upscaler, picture(13, 41, 1), 3.7).shape == (48, 152, 1)


# The real net


@pytest.mark.parametrize("size", [(1, 2), (13, 41), (50, 125)])
def test_idm_enlarges_every_size_with_progress_to_the_end(idm: Upscaler, size: tuple[int, int]) -> None:
    heard: list[Progress] = []
    height, width = Size(scale=3.7).of(*size)
    settings = Settings(steps=2, stochasticity=1.0, tile_px=72)
    result = idm.enlarge(picture(*size), height, width, settings, on_progress=heard.append)
    assert result.shape == (height, width, 3)
    tiles = 2 if size[1] > 120 else 1
    assert [progress.done for progress in heard] == list(range(1, 3 * tiles + 1))
    assert {progress.total for progress in heard} == {3 * tiles}


@pytest.mark.parametrize("scale", [1.5, 3.7])
def test_low_frequencies_are_held(idm: Upscaler, scale: float) -> None:
    small = picture(40, 60)
    free = enlarge(idm, small, scale, FREE)
    held = enlarge(idm, small, scale, Settings(steps=1))
    assert consistency_db(held, small) > max(35, consistency_db(free, small) + 6)


def test_out_of_memory_stops_at_the_smallest_tile_of_the_factor(idm: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(tiled.TiledRun, "_tile", never)
    with pytest.raises(DeviceError, match="even with tiles of 130 px"):
        enlarge(idm, picture(260, 260), 3.7, Settings(steps=1, tile_px=260))
