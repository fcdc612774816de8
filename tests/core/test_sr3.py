from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core import resize
from dreamsr.core.backbones.sr3 import SR3, SR3Config
from dreamsr.core.backbones.unet import NoiseLevelCode, SelfAttention
from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.device import Compute
from dreamsr.core.dream import dream_loss
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import sample
from dreamsr.weights.file import load_weights, save_weights
from tests.core.oracles import images, noises

SMALL = SR3Config(channels=8, multipliers=(1, 2, 3), blocks_per_level=1, attention_levels=(1,), dropout=0.2, groups=4)
STEPS = 6
PROCESS = ProcessConfig(kind="gaussian", timesteps=STEPS, schedule="linear", beta_first=1e-3, beta_last=0.9)
CPU = torch.device("cpu")


def config_of(size: SR3Config = SMALL, *, scale: int = 2, prediction: Prediction = "eps") -> ModelConfig:
    return ModelConfig(backbone="sr3", scale=scale, prediction=prediction, process=PROCESS, sizes=size)


def sr3(
    size: SR3Config = SMALL, *, scale: int = 2, fresh: bool = False, dtype: torch.dtype = torch.float64
) -> Denoiser:
    """A small SR3 in eval mode; unless `fresh`, no weight is zero, as after training."""
    config = config_of(size, scale=scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(config)
        if not fresh:
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return build_denoiser(config, net.to(dtype).eval())


def run(denoiser: Denoiser, low: Tensor, *, steps: int = 2) -> Tensor:
    size = (low.shape[-2] * denoiser.scale, low.shape[-1] * denoiser.scale)
    noise = noises(len(low), size=size, dtype=low.dtype)
    with torch.no_grad():
        return sample(denoiser, denoiser.condition(low), steps=steps, noise=lambda _step: noise)


def told(denoiser: Denoiser, x_t: Tensor, y: Tensor, *levels: float) -> Tensor:
    with torch.no_grad():
        out: Tensor = denoiser.net(x_t, Condition(y), torch.tensor(levels, dtype=x_t.dtype))
    return out


# The published sizes, counted from the paper's drawing and not from the modules


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    return inputs * outputs * side**2 + outputs


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def block(inputs: int, outputs: int, code: int) -> int:
    norms = 2 * inputs + 2 * outputs
    shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
    return norms + conv(inputs, outputs) + linear(code, outputs) + conv(outputs, outputs) + shortcut


def attention(width: int) -> int:
    return 2 * width + 3 * width**2 + conv(width, width, 1)


def parameters(c: int, multipliers: tuple[int, ...], blocks: int, attended: tuple[int, ...]) -> int:
    """The whole net: each level is entered, widened by its first block, and left through a resampling convolution."""
    widths = [c * m for m in multipliers]
    ends = linear(c, 4 * c) + linear(4 * c, c) + conv(6, c) + 2 * widths[0] + conv(widths[0], 3)
    total = ends + 2 * block(widths[-1], widths[-1], c) + attention(widths[-1])
    for i, width in enumerate(widths):
        finer = widths[i - 1] if i > 0 else c  # also the width of the skip with which this level was entered
        coarser = widths[i + 1] if i + 1 < len(widths) else width
        total += block(finer, width, c) + (blocks - 1) * block(width, width, c)
        total += block(coarser + width, width, c)  # the decoder's first block meets what comes from below
        total += (blocks - 1) * block(2 * width, width, c) + block(width + finer, width, c)
        total += (2 * blocks + 1) * attention(width) if i in attended else 0
        total += 2 * conv(width, width) if i > 0 else 0  # up from this level; down into it keeps the finer width
        total += conv(finer, finer) - conv(width, width) if i > 0 else 0
    return total


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        (SR3Config(), 97.8),
        (SR3Config(multipliers=(1, 2, 4, 8, 16), blocks_per_level=1, attention_levels=(), dropout=0, groups=16), 155.3),
        (SR3Config(channels=32, multipliers=(1, 2, 4, 8), attention_levels=()), 13.9),
        (SR3Config(channels=48, multipliers=(1, 2, 4, 4), attention_levels=(), groups=16), 13.0),
        (SR3Config(channels=64, multipliers=(1, 2, 4), attention_levels=()), 13.8),
        (SR3Config(channels=64, multipliers=(1, 2, 2, 4), attention_levels=()), 16.2),
    ],
    ids=lambda value: str(value) if isinstance(value, float) else "",
)
def test_published_sizes(size: SR3Config, millions: float) -> None:
    with torch.device("meta"):
        net = SR3(size, scale=8)
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert counted == parameters(size.channels, size.multipliers, size.blocks_per_level, size.attention_levels)
    assert round(counted / 1e6, 1) == millions


@pytest.mark.parametrize(("levels", "blocks"), [((), 1), ((1,), 1), ((0, 2), 1), ((2,), 2)])
def test_attention_is_in_the_middle_and_at_the_named_levels(levels: tuple[int, ...], blocks: int) -> None:
    size = SR3Config(channels=8, multipliers=(1, 2, 3), blocks_per_level=blocks, attention_levels=levels, groups=4)
    net = SR3(size, scale=2)
    widths = sorted(m.out.out_channels for m in net.modules() if isinstance(m, SelfAttention))
    assert widths == sorted([24] + [8 * (level + 1) for level in levels for _ in range(2 * blocks + 1)])


# Shapes


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 17), (8, 8)])
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_any_size_is_enlarged_by_the_scale(size: tuple[int, int], scale: int) -> None:
    denoiser, low = sr3(scale=scale), images(2, size=size)
    assert torch.equal(denoiser.condition(low).y, resize.enlarge(low, scale))
    out = run(denoiser, low)
    assert out.shape == (2, 3, scale * size[0], scale * size[1])
    assert bool(out.isfinite().all())


def test_one_pixel_and_as_many_groups_as_channels() -> None:
    size = SR3Config(channels=4, multipliers=(1, 1), blocks_per_level=1, attention_levels=(), groups=4)
    assert bool(run(sr3(size, scale=1), images(1, size=(1, 1))).isfinite().all())


def test_odd_size_is_the_corner_of_the_padded_one() -> None:
    denoiser, x_t, y = sr3(), images(1, size=(5, 6)), images(1, seed=3, size=(5, 6))
    pad = nn.ReplicationPad2d((0, 2, 0, 3))
    padded = told(denoiser, pad(x_t), pad(y), 0.5)
    torch.testing.assert_close(told(denoiser, x_t, y, 0.5), padded[..., :5, :6], rtol=0, atol=1e-12)


def test_another_scale_is_an_error() -> None:
    denoiser, low = sr3(scale=2), images(1)
    assert denoiser.condition(low, Fraction(2)).features is None
    with pytest.raises(ValueError, match="enlarges 2 times"):
        denoiser.condition(low, Fraction(3, 2))


# What the prediction depends on


def test_fresh_net_predicts_no_noise() -> None:
    denoiser = sr3(fresh=True)
    assert not bool(told(denoiser, images(1), images(1, seed=3), 0.5).any())


def test_prediction_depends_on_both_images_and_the_level() -> None:
    denoiser, x_t, y = sr3(), images(1, size=(4, 8)), images(1, seed=3, size=(4, 8))
    plain = told(denoiser, x_t, y, 0.5)
    changed = [told(denoiser, x_t + 0.1, y, 0.5), told(denoiser, x_t, y.flip(-1), 0.5), told(denoiser, x_t, y, 0.6)]
    assert all(float((out - plain).abs().max()) > 1e-3 for out in changed)


def test_far_pixels_are_seen_through_attention_alone() -> None:
    """Where the level has no mean and variance to carry news, only attention reaches from corner to corner."""
    size = SR3Config(channels=4, multipliers=(1,), blocks_per_level=1, attention_levels=(), groups=1, dropout=0)
    denoiser, x_t, y = sr3(size), images(1, size=(1, 40)), images(1, seed=3, size=(1, 40))
    net = denoiser.net
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    moved = x_t.clone()
    moved[..., -1] += 1
    seen = (told(denoiser, moved, y, 0.5) - told(denoiser, x_t, y, 0.5))[..., 0].abs().max()
    assert float(seen) > 1e-9
    for attention_ in (m for m in net.modules() if isinstance(m, SelfAttention)):
        nn.init.zeros_(attention_.out.weight)
    assert torch.equal(told(denoiser, moved, y, 0.5)[..., 0], told(denoiser, x_t, y, 0.5)[..., 0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_code_tells_neighbouring_levels_apart_from_the_first_step_to_the_last(dtype: torch.dtype) -> None:
    """The first steps of the published schedule (levels 1e-3, 2e-3, ...) and its last (0.99997...)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        code = NoiseLevelCode(64).to(dtype)
    betas = torch.linspace(1e-6, 1e-2, 2000, dtype=torch.float64)
    levels = torch.cat([torch.tensor([0.0, 1e-3, 2e-3]), (1 - (1 - betas).cumprod(0)).sqrt()[::100]])
    with torch.no_grad():
        codes = code(levels.to(dtype))
    apart = torch.cdist(codes.double(), codes.double()) + torch.eye(len(codes)) * 9
    assert bool(codes.isfinite().all())
    assert float(apart[1:3, 1:3].min()) > 1e-4  # rounding moves a float32 code by 1e-5
    assert float(apart[3:, 3:].min()) > 0.02


def test_float32_code_is_close_to_float64() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        code = NoiseLevelCode(16)
    levels = torch.linspace(0, 0.99997, 50)
    with torch.no_grad():
        single, double = code(levels), code.double()(levels.double())
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 5, 8])
def test_code_has_as_many_values_as_channels(channels: int) -> None:
    assert NoiseLevelCode(channels)(torch.tensor([0.0, 0.5, 1.0])).shape == (3, channels)


# Independence


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    denoiser, x_t, y = sr3(), images(3, size=(5, 6)), images(3, seed=3, size=(5, 6))
    levels = (0.2, 0.5, 0.9)
    together = told(denoiser, x_t, y, *levels)
    assert torch.equal(together, told(denoiser, x_t, y, *levels))
    for i in range(3):
        alone = told(denoiser, x_t[i : i + 1], y[i : i + 1], levels[i])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)


def test_dropout_works_in_training_alone() -> None:
    denoiser, x_t, y = sr3(), images(1, size=(4, 4)), images(1, seed=3, size=(4, 4))
    plain = told(denoiser, x_t, y, 0.5)
    denoiser.net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(told(denoiser, x_t, y, 0.5), told(denoiser, x_t, y, 0.5))
    denoiser.net.eval()
    assert torch.equal(told(denoiser, x_t, y, 0.5), plain)


def test_channel_order_in_memory_does_not_matter() -> None:
    denoiser, x_t, y = sr3(), images(1, size=(4, 8)), images(1, seed=3, size=(4, 8))
    other = told(denoiser, x_t.contiguous(memory_format=torch.channels_last), y, 0.5)
    torch.testing.assert_close(other, told(denoiser, x_t, y, 0.5), rtol=0, atol=1e-12)


def test_global_generator_alone_decides_the_fresh_weights() -> None:
    with torch.random.fork_rng(devices=[]):
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(SR3(SMALL, scale=2).state_dict()["unet.enter.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


# Sampling, training, keeping


@pytest.mark.parametrize("steps", [1, 4, STEPS])
@pytest.mark.parametrize("fresh", [True, False])
def test_sampling_gives_an_image(steps: int, *, fresh: bool) -> None:
    out = run(sr3(fresh=fresh, dtype=torch.float32), images(2, size=(3, 4), dtype=torch.float32), steps=steps)
    assert out.shape == (2, 3, 6, 8)
    assert bool(out.isfinite().all())
    assert float(out.abs().max()) <= 1


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x0, low, eps, t) of four images."""
    x0 = images(4, seed=3, size=(8, 8), dtype=torch.float32)
    t = torch.tensor([1.0, 2.0, 4.0, STEPS], dtype=torch.float64)
    return x0, resize.shrink(x0, 2), noises(4, size=(8, 8), dtype=torch.float32), t


@pytest.mark.parametrize(
    ("prediction", "power"), [("eps", 0.0), ("eps", 1.0), ("eps", float("inf")), ("x0", 1.0), ("v", 1.0)]
)
def test_training_lowers_the_loss_and_reaches_every_parameter(prediction: Prediction, power: float) -> None:
    size = SR3Config(channels=8, multipliers=(1, 2), blocks_per_level=1, attention_levels=(1,), dropout=0, groups=4)
    config = config_of(size, prediction=prediction)
    x0, low, eps, t = batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = build_denoiser(config, build_net(config))
    named = dict(denoiser.net.named_parameters())
    optimizer = torch.optim.Adam(named.values(), lr=3e-3)
    history = []
    for _ in range(40):
        losses = dream_loss(denoiser, x0, denoiser.condition(low), eps, t, power=power)
        assert losses.shape == (4,)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        history.append(losses.mean().item())
    assert history[-1] < 0.8 * history[0]
    assert [name for name, p in named.items() if p.grad is None or not bool(p.grad.any())] == []


def test_gradient_and_prediction_in_bfloat16_are_close_to_float32() -> None:
    outs = []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser = sr3(dtype=torch.float32)
        denoiser.compute = Compute(CPU, dtype, "as the test asks")
        x0, low, eps, t = batch()
        raw = denoiser.raw(denoiser.process.corrupt(x0, x0, eps, t), denoiser.condition(low), t)
        assert raw.dtype == torch.float32
        raw.square().mean().backward()
        gradient = denoiser.net.unet.enter.weight.grad  # type: ignore[union-attr]
        outs.append((raw.detach(), gradient))
    for exact, coarse in zip(*outs, strict=True):
        assert not torch.equal(exact, coarse)
        assert float((coarse - exact).norm()) < 0.05 * float(exact.norm())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    denoiser, path = sr3(dtype=torch.float32), tmp_path / "model.safetensors"
    save_weights(path, denoiser.net.state_dict(), config_of(), facts={}, dtype=torch.float32)
    loaded = load_weights(path)
    assert loaded.config == config_of()
    low = images(1, size=(3, 4), dtype=torch.float32)
    assert torch.equal(run(build_denoiser(loaded.config, loaded.net), low), run(denoiser, low))
