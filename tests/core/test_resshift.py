from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.core import resize
from dreamsr.core.backbones.resshift import ResShiftConfig, ScaledBlock, SwinUNet
from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.device import Compute
from dreamsr.core.dream import dream_inputs, dream_loss
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import sample
from dreamsr.weights.file import load_weights, save_weights
from tests.core.oracles import images, noises

SMALL = ResShiftConfig(
    channels=8, multipliers=(1, 2), blocks_per_level=1, swin_width=8, heads=2, window=3, dropout=0.2, groups=4
)
FIFTEEN = ProcessConfig(kind="residual", schedule="geometric", timesteps=15, kappa=2.0, sqrt_eta_first=0.02)
FOUR = ProcessConfig(kind="residual", schedule="geometric", timesteps=4, kappa=2.0, sqrt_eta_first=0.1)
GAUSSIAN = ProcessConfig(kind="gaussian", schedule="linear", timesteps=2000)


def config_of(
    size: ResShiftConfig = SMALL,
    *,
    scale: int = 2,
    prediction: Prediction = "x0",
    process: ProcessConfig = FIFTEEN,
) -> ModelConfig:
    return ModelConfig(backbone="resshift", scale=scale, prediction=prediction, process=process, sizes=size)


def resshift(config: ModelConfig | None = None, *, fresh: bool = False, dtype: torch.dtype = torch.float64) -> Denoiser:
    """A small ResShift in eval mode; unless `fresh`, no weight is zero, as after training."""
    config = config or config_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(config)
        if not fresh:
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return build_denoiser(config, net.to(dtype).eval())


def run(denoiser: Denoiser, low: Tensor, *, steps: int = 2, stochasticity: float = 1.0) -> Tensor:
    size = (low.shape[-2] * denoiser.scale, low.shape[-1] * denoiser.scale)

    def noise(step: int) -> Tensor:
        return noises(len(low), seed=step, size=size, dtype=low.dtype)

    with torch.no_grad():
        return sample(denoiser, denoiser.condition(low), steps=steps, noise=noise, stochasticity=stochasticity)


def told(denoiser: Denoiser, x_t: Tensor, low: Tensor, *levels: float) -> Tensor:
    with torch.no_grad():
        out: Tensor = denoiser.net(x_t, denoiser.condition(low), torch.tensor(levels, dtype=x_t.dtype))
    return out


# Size: counted from the paper's drawing and not from the modules


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    return inputs * outputs * side**2 + outputs


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def block(inputs: int, outputs: int, embedding: int) -> int:
    shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
    body = conv(inputs, outputs) + conv(outputs, outputs) + linear(embedding, 2 * outputs)
    return 2 * inputs + 2 * outputs + body + shortcut


def swin(channels: int, size: ResShiftConfig) -> int:
    width = size.swin_width
    attention = linear(width, 3 * width) + linear(width, width) + size.heads * (2 * size.window - 1) ** 2
    layer = 4 * width + attention + linear(width, 4 * width) + linear(4 * width, width)
    return conv(channels, width, 1) + size.swin_depth * layer + conv(width, channels, 1)


def unet_parameters(size: ResShiftConfig, *, inputs: int, outputs: int) -> int:
    """Each level is entered, widened by its first block, and left through a resampling convolution."""
    blocks, e = size.blocks_per_level, 4 * size.channels
    widths = [size.channels * m for m in size.multipliers]
    total = conv(inputs, size.channels) + 2 * widths[0] + conv(widths[0], outputs)
    total += 2 * block(widths[-1], widths[-1], e) + swin(widths[-1], size)
    for i, width in enumerate(widths):
        finer = widths[i - 1] if i > 0 else size.channels
        coarser = widths[i + 1] if i + 1 < len(widths) else width
        total += block(finer, width, e) + (blocks - 1) * block(width, width, e) + swin(width, size)
        total += block(coarser + width, width, e) + (blocks - 1) * block(2 * width, width, e)
        total += block(width + finer, width, e) + swin(width, size)
        total += conv(finer, finer) + conv(width, width) if i > 0 else 0
    return total


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_paper_s_inputs_give_the_paper_s_118_6_million_parameters() -> None:
    """There 3 latent and 3 image channels go in, and 160 waves into the level's embedding."""
    with torch.device("meta"):
        unet = SwinUNet(ResShiftConfig(), inputs=6, outputs=3, embedding=640)
    assert count(unet) == unet_parameters(ResShiftConfig(), inputs=6, outputs=3)
    assert round((count(unet) + linear(160, 640) + linear(640, 640)) / 1e6, 1) == 118.6


@pytest.mark.parametrize(
    ("size", "scale"), [(ResShiftConfig(), 4), (SMALL, 2), (ResShiftConfig(blocks_per_level=3, multipliers=(2, 1)), 1)]
)
def test_parameters_are_those_of_the_drawing(size: ResShiftConfig, scale: int) -> None:
    with torch.device("meta"):
        net = build_net(config_of(size, scale=scale))
    e, grid = 4 * size.channels, 3 * scale**2
    assert count(net) == unet_parameters(size, inputs=grid + 3, outputs=grid) + linear(64, e) + linear(e, e)
    assert list(net.buffers()) == []  # a buffer made without memory would never be filled


# Shapes, and what a prediction depends on


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 17), (8, 8)])
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_any_size_is_enlarged_by_the_scale(size: tuple[int, int], scale: int) -> None:
    denoiser, low = resshift(config_of(scale=scale)), images(2, size=size)
    out = run(denoiser, low)
    assert out.shape == (2, 3, scale * size[0], scale * size[1])
    assert bool(out.isfinite().all())


def test_odd_size_is_the_corner_of_the_padded_one() -> None:
    denoiser, x_t, low = resshift(config_of(scale=1)), images(1, size=(5, 7)), images(1, seed=3, size=(5, 7))
    pad = nn.ReplicationPad2d((0, 1, 0, 1))
    both = [told(denoiser, f(x_t), f(low), 0.5) - denoiser.condition(f(low)).y for f in (pad, lambda x: x)]
    torch.testing.assert_close(both[0][..., :5, :7], both[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [FIFTEEN, FOUR])
@pytest.mark.parametrize("size", [(1, 1), (5, 6)])
def test_fresh_net_that_predicts_x0_returns_the_bicubic_enlargement(
    process: ProcessConfig, size: tuple[int, int]
) -> None:
    denoiser, low = resshift(config_of(process=process), fresh=True), images(2, size=size)
    base = resize.enlarge(low, 2)
    condition = denoiser.condition(low)
    assert torch.equal(condition.y, base)
    assert condition.features is low
    assert torch.equal(told(denoiser, noises(2, size=tuple(base.shape[2:])), low, 0.3, 0.9), base)
    assert torch.equal(run(denoiser, low), base.clamp(-1, 1))


def test_fresh_net_that_predicts_noise_returns_none() -> None:
    denoiser = resshift(config_of(prediction="eps", process=GAUSSIAN), fresh=True)
    assert not bool(told(denoiser, images(1, size=(4, 6)), images(1, size=(2, 3)), 0.5).any())


def test_prediction_depends_on_both_images_and_the_level() -> None:
    denoiser, x_t, low = resshift(), images(1, size=(8, 10)), images(1, seed=3, size=(4, 5))
    plain = told(denoiser, x_t, low, 0.5)
    condition = denoiser.condition(low)
    with torch.no_grad():
        elsewhere = denoiser.net(x_t, Condition(condition.y, low.flip(-1)), torch.tensor([0.5], dtype=x_t.dtype))
    changed = [told(denoiser, x_t + 0.1, low, 0.5), elsewhere, told(denoiser, x_t, low, 0.6)]
    assert all(float((out - plain).abs().max()) > 1e-3 for out in changed)


def test_noisy_image_is_scaled_to_unit_variance() -> None:
    """x_t has variance 1 + kappa^2 eta where x0 and y have 1; the Gaussian family preserves it."""
    x_t, low, levels = images(2, size=(8, 10)), images(2, seed=3, size=(4, 5)), (0.2, 0.9)
    plain = resshift(config_of(process=GAUSSIAN))  # the same weights
    factors = torch.tensor([1 / math.sqrt(1 + 4 * level**2) for level in levels], dtype=x_t.dtype)
    scaled = told(plain, x_t * factors.view(-1, 1, 1, 1), low, *levels)
    torch.testing.assert_close(told(resshift(), x_t, low, *levels), scaled, rtol=0, atol=1e-12)


def test_level_scales_and_shifts_what_the_second_norm_made() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = ScaledBlock(4, 6, embedding=2, groups=2, dropout=0.0).double().requires_grad_(False)
        nn.init.normal_(part.second.weight)
    x, embedding = noises(1, size=(5, 4))[:, [0, 1, 2, 0]], torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    told_by = part.modulation.weight @ embedding[0] + part.modulation.bias  # [2*6]
    normed = part.second_norm(part.first(F.silu(part.first_norm(x))))
    channels = [normed[:, i] * (1 + told_by[i]) + told_by[6 + i] for i in range(6)]
    expected = part.shortcut(x) + part.second(F.silu(torch.stack(channels, dim=1)))
    torch.testing.assert_close(part(x, embedding), expected, rtol=0, atol=1e-12)


def test_another_scale_and_missing_features_are_errors() -> None:
    denoiser, low = resshift(), images(1)
    assert denoiser.condition(low, Fraction(2)).features is low
    with pytest.raises(ValueError, match="enlarges 2 times"):
        denoiser.condition(low, Fraction(3, 2))
    with pytest.raises(ValueError, match="features"):
        denoiser.net(low, Condition(low), torch.tensor([0.5]))


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    denoiser, x_t, low = resshift(), images(3, size=(10, 14)), images(3, seed=3, size=(5, 7))
    levels = (0.2, 0.5, 0.9)
    together = told(denoiser, x_t, low, *levels)
    assert torch.equal(together, told(denoiser, x_t, low, *levels))
    for i in range(3):
        alone = told(denoiser, x_t[i : i + 1], low[i : i + 1], levels[i])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)


# Sampling, training, keeping


@pytest.mark.parametrize(
    ("prediction", "process", "steps"),
    [
        ("x0", FIFTEEN, 1),
        ("x0", FIFTEEN, 4),
        ("x0", FIFTEEN, 15),
        ("x0", FOUR, 4),
        ("eps", GAUSSIAN, 4),
        ("eps", GAUSSIAN, 50),
    ],
)
@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_sampling_gives_an_image(
    prediction: Prediction, process: ProcessConfig, steps: int, stochasticity: float
) -> None:
    denoiser = resshift(config_of(prediction=prediction, process=process), dtype=torch.float32)
    low = images(2, size=(3, 4), dtype=torch.float32)
    out = run(denoiser, low, steps=steps, stochasticity=stochasticity)
    assert out.shape == (2, 3, 6, 8)
    assert bool(out.isfinite().all())
    assert float(out.abs().max()) <= 1


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, low, eps) of four images."""
    x0 = images(4, seed=3, size=(12, 12), dtype=dtype)
    return x0, resize.shrink(x0, 2), noises(4, size=(12, 12), dtype=dtype)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0, math.inf])
def test_dream_moves_the_input_by_the_model_s_error_and_keeps_x0_as_the_target(power: float) -> None:
    """x_t' = x_t + (1 - eta) lam (x0_hat - x0), lam = eta^(power/2)."""
    denoiser, (x0, low, eps) = resshift(), batch(torch.float64)
    t = torch.tensor([1.0, 4.0, 9.0, 15.0], dtype=torch.float64)
    condition = denoiser.condition(low)
    roots = torch.tensor([0.02 * (0.99 / 0.02) ** (((i - 1) / 14) ** 0.3) for i in t.tolist()], dtype=x0.dtype)
    eta, root = (value.view(-1, 1, 1, 1) for value in (roots**2, roots))
    x_t = x0 + eta * (condition.y - x0) + 2 * root * eps
    with torch.no_grad():
        error = denoiser.net(x_t, condition, roots) - x0
    moved = x_t + (1 - eta) * (root**power if power < math.inf else 0) * error
    mine, explained_by = dream_inputs(denoiser, x0, condition, eps, t, power=power)
    torch.testing.assert_close(mine, moved, rtol=0, atol=1e-12)
    assert denoiser.target(x0, explained_by, t) is x0
    expected = (denoiser.net(moved, condition, roots) - x0).abs().mean(dim=(1, 2, 3))
    losses = dream_loss(denoiser, x0, condition, eps, t, power=power)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("prediction", "process", "power"),
    [("x0", FIFTEEN, 1.0), ("x0", FOUR, math.inf), ("eps", GAUSSIAN, 3.0), ("v", FIFTEEN, 1.0)],
)
def test_training_lowers_the_loss_and_reaches_every_parameter(
    prediction: Prediction, process: ProcessConfig, power: float
) -> None:
    denoiser = resshift(config_of(prediction=prediction, process=process), fresh=True, dtype=torch.float32)
    named = dict(denoiser.net.named_parameters())
    optimizer = torch.optim.Adam(named.values(), lr=1e-2)
    x0, low, eps = batch()
    t = process.timesteps * torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
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


def test_dropout_works_in_training_alone() -> None:
    denoiser, x_t, low = resshift(), images(1, size=(8, 8)), images(1, seed=3, size=(4, 4))
    plain = told(denoiser, x_t, low, 0.5)
    denoiser.net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(told(denoiser, x_t, low, 0.5), told(denoiser, x_t, low, 0.5))
    denoiser.net.eval()
    assert torch.equal(told(denoiser, x_t, low, 0.5), plain)


def test_prediction_and_gradient_in_bfloat16_are_close_to_float32() -> None:
    outs = []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser, (x0, low, eps) = resshift(dtype=torch.float32), batch()
        denoiser.compute = Compute(torch.device("cpu"), dtype, "as the test asks")
        condition, t = denoiser.condition(low), torch.tensor([1.0, 4.0, 9.0, 15.0])
        raw = denoiser.raw(denoiser.process.corrupt(x0, condition.y, eps, t), condition, t)
        assert raw.dtype == torch.float32
        (raw - x0).square().mean().backward()
        gradient = denoiser.net.unet.enter.weight.grad  # type: ignore[union-attr]
        outs.append((raw.detach(), gradient))
    for exact, coarse in zip(*outs, strict=True):
        assert not torch.equal(exact, coarse)
        assert float((coarse - exact).norm()) < 0.05 * float(exact.norm())


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_what_is_saved_comes_back(prediction: Prediction, tmp_path: Path) -> None:
    config = config_of(prediction=prediction)
    denoiser, path = resshift(config, dtype=torch.float32), tmp_path / "model.safetensors"
    save_weights(path, denoiser.net.state_dict(), config, facts={}, dtype=torch.float32)
    loaded = load_weights(path)
    assert loaded.config == config
    low = images(1, size=(5, 7), dtype=torch.float32)
    denoiser.net.requires_grad_(False)  # as a loaded net: torch may round differently where a gradient could be asked
    assert torch.equal(run(build_denoiser(loaded.config, loaded.net), low), run(denoiser, low))
