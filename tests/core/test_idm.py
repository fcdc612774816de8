"""IDM: any factor in one pass, coordinates in whole numbers, shares by the factor, and that it trains."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core import resize
from dreamsr.core.backbones.idm import IDM, CoordinateQuery, IDMConfig, ScaleMix, at_nearest, nearest
from dreamsr.core.backbones.sr3 import SR3, SR3Config
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import Compute
from dreamsr.core.dream import dream_loss
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import sample
from dreamsr.errors import ConfigError
from dreamsr.weights.file import load_weights, save_weights
from tests.core.oracles import images, noises

SMALL = IDMConfig(
    encoder_channels=5,
    encoder_blocks=1,
    channels=4,
    multipliers=(1, 2, 3),
    blocks_per_level=1,
    attention_levels=(2,),
    query_width=7,
    groups=2,
)
STEPS = 6
PROCESS = ProcessConfig(kind="gaussian", timesteps=STEPS, schedule="linear", beta_first=1e-3, beta_last=0.9)
CONFIG = ModelConfig(backbone="idm", scale=4, prediction="eps", process=PROCESS, sizes=SMALL)
FACTORS = [Fraction(41, 40), Fraction(3, 2), Fraction(2), Fraction(37, 10), Fraction(4)]


def idm(*, fresh: bool = False, dtype: torch.dtype = torch.float64) -> Denoiser:
    """A small IDM of up to x4 in eval mode; unless `fresh`, no weight is zero, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(CONFIG)
        if not fresh:
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return build_denoiser(CONFIG, net.to(dtype).eval())


def run(denoiser: Denoiser, low: Tensor, factor: Fraction | None = None, *, steps: int = 2) -> Tensor:
    with torch.no_grad():
        condition = denoiser.condition(low, factor)
        noise = noises(len(low), size=tuple(condition.y.shape[-2:]), dtype=low.dtype)
        return sample(denoiser, condition, steps=steps, noise=lambda _step: noise)


def told(denoiser: Denoiser, x_t: Tensor, condition: Condition, *levels: float) -> Tensor:
    with torch.no_grad():
        out: Tensor = denoiser.net(x_t, condition, torch.tensor(levels, dtype=x_t.dtype))
    return out


# Shapes


@pytest.mark.parametrize("factor", FACTORS, ids=str)
@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (2, 1)])
def test_any_size_is_enlarged_by_any_factor(factor: Fraction, cells: tuple[int, int]) -> None:
    """The smallest sizes that the factor takes to whole pixels; sizes of 1, and odd ones at every level."""
    denoiser = idm(dtype=torch.float32)
    height, width = (n * factor.denominator for n in cells)
    low = images(2, size=(height, width), dtype=torch.float32)
    out = run(denoiser, low, factor, steps=1)
    assert out.shape == (2, 3, height * factor, width * factor)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_without_a_factor_it_is_the_largest(size: tuple[int, int]) -> None:
    denoiser, low = idm(), images(1, size=size)
    condition, same = denoiser.condition(low), denoiser.condition(low, Fraction(4))
    assert torch.equal(condition.y, resize.enlarge(low, 4))
    assert torch.equal(condition.y, same.y)
    assert run(denoiser, low).shape == (1, 3, 4 * size[0], 4 * size[1])


def test_base_is_the_bicubic_enlargement_by_the_factor() -> None:
    low = images(1, size=(10, 20))
    expected = resize.resize(low, 37, 74, scale=3.7)
    torch.testing.assert_close(idm().condition(low, Fraction(37, 10)).y, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", [Fraction(1), Fraction(1, 2), Fraction(9, 2)])
def test_factor_out_of_range_is_an_error(factor: Fraction) -> None:
    with pytest.raises(ValueError, match="more than 1 and up to 4 times"):
        idm().condition(images(1, size=(2, 2)), factor)


@pytest.mark.parametrize("size", [(10, 11), (11, 10)])
def test_parts_of_pixels_are_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="whole pixels"):
        idm().condition(images(1, size=size), Fraction(37, 10))


def test_missing_features_and_no_room_for_a_factor_are_errors() -> None:
    y = images(1, size=(4, 4))
    with pytest.raises(ValueError, match="features"):
        idm()(y, Condition(y), torch.tensor([1.0]))
    with pytest.raises(ConfigError, match="2 or more"):
        IDM(SMALL, scale=1)


def parameters_beside_the_unet(config: IDMConfig) -> int:
    """The encoder, the guide, and per coarse level a strided convolution, two shares and a query."""
    c, q = config.encoder_channels, config.query_width
    encoder = 9 * 3 * c + c + (2 * config.encoder_blocks + 1) * (9 * c * c + c)
    total = encoder + 9 * c * 3 + 3
    shown = 3
    for multiplier in config.multipliers[1:]:
        width = multiplier * config.channels
        total += 9 * shown * width + width
        total += 2 * (width + width)
        total += (width + 2) * q + q + q * width + width
        shown = width
    return total


@pytest.mark.parametrize("size", [SMALL, IDMConfig(), IDMConfig(encoder_blocks=3, attention_levels=(), query_width=64)])
def test_parameters_are_those_of_sr3_with_other_ways_up(size: IDMConfig) -> None:
    common = ("channels", "multipliers", "blocks_per_level", "attention_levels", "dropout", "groups")
    with torch.device("meta"):
        net, sr3 = IDM(size, scale=8), SR3(SR3Config(**{name: getattr(size, name) for name in common}), scale=8)
    counted, of_sr3 = (sum(parameter.numel() for parameter in each.parameters()) for each in (net, sr3))
    ups = sum(9 * (m * size.channels) ** 2 + m * size.channels for m in size.multipliers[1:])
    assert counted == of_sr3 - ups + parameters_beside_the_unet(size)
    if size == IDMConfig():
        assert round(counted / 1e6, 1) == 98.1  # the released code: 116.4, of which about 14 never run


# Coordinates


def test_nearest_pixels_and_places_worked_out_by_hand() -> None:
    """2 pixels under 5: centres at .2 .6 1.0 1.4 1.8 of a pixel; the third lies where the second begins."""
    index, offset = nearest(2, 5)
    assert index.tolist() == [0, 0, 1, 1, 1]
    assert offset.tolist() == pytest.approx([-0.6, 0.2, -1.0, -0.2, 0.6], abs=1e-15)


def test_doubling_gives_quarters_and_no_change_gives_centres() -> None:
    index, offset = nearest(3, 6)
    assert (index.tolist(), offset.tolist()) == ([0, 0, 1, 1, 2, 2], [-0.5, 0.5] * 3)
    index, offset = nearest(4, 4)
    assert (index.tolist(), offset.tolist()) == ([0, 1, 2, 3], [0.0] * 4)


@pytest.mark.parametrize(("size", "new_size"), [(1, 1), (1, 9), (3, 5), (40, 41), (37, 148), (97, 193)])
def test_index_and_offset_give_the_position_back(size: int, new_size: int) -> None:
    index, offset = nearest(size, new_size)
    positions = torch.tensor([(i + 0.5) * size / new_size for i in range(new_size)], dtype=torch.float64)
    torch.testing.assert_close(index + 0.5 + offset / 2, positions, rtol=0, atol=1e-12)
    assert int(index.min()) >= 0
    assert int(index.max()) == size - 1
    assert bool(((offset >= -1) & (offset < 1)).all())


def test_rows_and_columns_are_not_exchanged() -> None:
    grid = torch.arange(6.0).view(1, 1, 2, 3)  # rows 0 1 2, 3 4 5
    expected = [[0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]]
    assert at_nearest(grid, 3, 5)[0, 0].tolist() == expected


@pytest.mark.parametrize(("size", "new"), [((2, 3), (5, 6)), ((1, 4), (2, 7)), ((3, 3), (3, 3))])
def test_query_is_a_perceptron_of_the_nearest_feature_and_the_offset(
    size: tuple[int, int], new: tuple[int, int]
) -> None:
    """Pixel by pixel, with both layers as plain matrices."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        query, features = CoordinateQuery(3, 5).double(), torch.randn(2, 3, *size, dtype=torch.float64)
    first = torch.cat([query.of_feature.weight[:, :, 0, 0], query.of_place.weight], dim=1)  # [5,3+2]
    found = query(features, *new)
    for i in range(new[0]):
        for j in range(new[1]):
            v, u = (i + 0.5) * size[0] / new[0], (j + 0.5) * size[1] / new[1]
            place = torch.tensor([2 * (v - int(v)) - 1, 2 * (u - int(u)) - 1], dtype=torch.float64)
            joined = torch.cat([features[:, :, int(v), int(u)], place.expand(2, 2)], dim=1)
            hidden = (joined @ first.T + query.of_feature.bias).clamp(min=0)
            expected = hidden @ query.out.weight[:, :, 0, 0].T + query.out.bias
            torch.testing.assert_close(found[:, :, i, j], expected, rtol=0, atol=1e-12)


# The factor


def test_factor_is_told_from_0_to_1() -> None:
    net = IDM(SMALL, scale=8)
    assert [float(net.strength(factor)) for factor in (Fraction(8), Fraction(9, 2), Fraction(3, 2))] == [1, 0.5, 1 / 14]


def test_shares_are_a_point_on_the_circle_in_every_channel() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mix = ScaleMix(6).double()
        nn.init.normal_(mix.shares.weight)
    one, none = torch.ones(1, 6, 2, 3, dtype=torch.float64), torch.zeros(1, 6, 2, 3, dtype=torch.float64)
    for strength in (0.1, 0.9):
        told_it = torch.full((1, 1), strength, dtype=torch.float64)
        first, second = mix(one, none, told_it), mix(none, one, told_it)
        positive = [torch.where(out < 0, out / 0.2, out) for out in (first, second)]
        torch.testing.assert_close(positive[0] ** 2 + positive[1] ** 2, one, rtol=0, atol=1e-12)
        both = mix(2 * one, 3 * one, told_it)
        expected = nn.functional.leaky_relu(2 * positive[0] + 3 * positive[1], 0.2)
        torch.testing.assert_close(both, expected, rtol=0, atol=1e-12)


def test_factor_matters_beside_the_sizes() -> None:
    """The same grids and features, told another factor."""
    denoiser, low = idm(), images(1, size=(4, 4))
    condition = denoiser.condition(low, Fraction(2))
    x_t = noises(1, size=(8, 8))
    plain = told(denoiser, x_t, condition, 0.5)
    denoiser.net.scale = 8  # the factor 2 now is a smaller part of the range
    assert float((told(denoiser, x_t, condition, 0.5) - plain).abs().max()) > 1e-4


def test_prediction_depends_on_all_it_is_given() -> None:
    denoiser, low = idm(), images(1, size=(4, 6))
    condition, x_t = denoiser.condition(low, Fraction(3, 2)), noises(1, size=(6, 9))
    plain = told(denoiser, x_t, condition, 0.5)
    assert condition.features is not None
    others = [
        told(denoiser, x_t.flip(-1), condition, 0.5),
        told(denoiser, x_t, Condition(condition.y, condition.features.flip(-1)), 0.5),
        told(denoiser, x_t, condition, 0.6),
    ]
    assert all(float((out - plain).abs().max()) > 1e-3 for out in others)


def test_fresh_net_predicts_no_noise() -> None:
    denoiser = idm(fresh=True)
    condition = denoiser.condition(images(1, size=(2, 2)), Fraction(5, 2))
    assert not bool(told(denoiser, noises(1, size=(5, 5)), condition, 0.5).any())


# Independence, precision, keeping


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    denoiser, low = idm(), images(3, size=(2, 4))
    x_t, levels = noises(3, size=(5, 10)), (0.2, 0.5, 0.9)
    together = told(denoiser, x_t, denoiser.condition(low, Fraction(5, 2)), *levels)
    for i in range(3):
        condition = denoiser.condition(low[i : i + 1], Fraction(5, 2))
        alone = told(denoiser, x_t[i : i + 1], condition, levels[i])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, STEPS])
@pytest.mark.parametrize("fresh", [True, False])
def test_sampling_gives_an_image(steps: int, *, fresh: bool) -> None:
    low = images(2, size=(2, 4), dtype=torch.float32)
    out = run(idm(fresh=fresh, dtype=torch.float32), low, Fraction(7, 2), steps=steps)
    assert out.shape == (2, 3, 7, 14)
    assert bool(out.isfinite().all())
    assert float(out.abs().max()) <= 1


def test_bfloat16_is_close_to_float32() -> None:
    denoiser, low = idm(dtype=torch.float32), images(2, size=(4, 4), dtype=torch.float32)
    x_t, t = noises(2, size=(10, 10), dtype=torch.float32), torch.tensor([2.0, 5.0])
    outs = []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser.compute = Compute(torch.device("cpu"), dtype, "as the test asks")
        with torch.no_grad():
            outs.append(denoiser.raw(x_t, denoiser.condition(low, Fraction(5, 2)), t))
    exact, coarse = outs
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    assert float((coarse - exact).norm()) < 0.05 * float(exact.norm())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    denoiser, path = idm(dtype=torch.float32), tmp_path / "model.safetensors"
    save_weights(path, denoiser.net.state_dict(), CONFIG, facts={}, dtype=torch.float32)
    loaded = load_weights(path)
    assert loaded.config == CONFIG
    low = images(1, size=(2, 4), dtype=torch.float32)
    again = run(build_denoiser(loaded.config, loaded.net), low, Fraction(3, 2))
    assert torch.equal(again, run(denoiser, low, Fraction(3, 2)))


# Training


@pytest.mark.parametrize("power", [0.0, 1.0, float("inf")])
def test_training_with_a_factor_per_step_lowers_the_loss_and_reaches_every_parameter(power: float) -> None:
    """Low images of 4x4, large ones of 5 to 16 px: one factor per step, as IDM is trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = replace(CONFIG, sizes=replace(SMALL, dropout=0.0))
        denoiser = build_denoiser(config, build_net(config))
    named = dict(denoiser.net.named_parameters())
    optimizer = torch.optim.Adam(named.values(), lr=5e-3)
    large, t = images(4, seed=3, size=(16, 16), dtype=torch.float32), torch.tensor([1.0, 2.0, 4.0, STEPS])
    low = resize.shrink(large, 4)
    generator, history = torch.Generator().manual_seed(0), []
    for _ in range(100):
        side = int(torch.randint(5, 17, (), generator=generator))
        x0, eps = resize.resize(large, side, side), noises(4, size=(16, 16), dtype=torch.float32)[..., :side, :side]
        condition = denoiser.condition(low, Fraction(side, 4))
        losses = dream_loss(denoiser, x0, condition, eps, t, power=power)
        assert losses.shape == (4,)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        history.append(losses.mean().item())
    assert sum(history[-8:]) < 0.8 * sum(history[:8])
    assert [name for name, p in named.items() if p.grad is None or not bool(p.grad.any())] == []
