from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from dreamsr.core import resize
from dreamsr.core.backbones.idm import IDMConfig
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.denoiser import Denoiser, Traits
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import restore, sample

REFINER = ModelConfig(scale=2, sizes=RefinerConfig(8, 1, (8,), 1))
IDM = ModelConfig(
    backbone="idm",
    prediction="eps",
    process=ProcessConfig(kind="gaussian", timesteps=20, beta_last=0.5),
    sizes=IDMConfig(8, 1, channels=8, multipliers=(1, 2), attention_levels=(), query_width=8, groups=4),
)
LOW = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def denoiser_of(model: ModelConfig) -> Denoiser:
    """A net in float64 whose last layers, zero when fresh, say something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_net(model).double().eval().requires_grad_(False)
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return build_denoiser(model, net)


def noise(step: int, scale: Fraction | int = 2) -> Tensor:
    size = (2, 3, int(6 * scale), int(8 * scale))
    return torch.randn(size, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def test_it_is_the_sampler_on_what_is_known_of_the_small_image() -> None:
    denoiser = denoiser_of(REFINER)
    expected = sample(denoiser, denoiser.condition(LOW), steps=3, noise=noise, stochasticity=0.5)
    assert torch.equal(restore(denoiser, LOW, steps=3, noise=noise, stochasticity=0.5), expected)
    assert not torch.equal(restore(denoiser, LOW, steps=3, noise=noise), expected)


def test_the_base_and_then_every_step_are_told() -> None:
    denoiser = denoiser_of(REFINER)
    told: list[tuple[int, Tensor]] = []
    image = restore(denoiser, LOW, steps=3, noise=noise, on_step=lambda number, x0_hat: told.append((number, x0_hat)))
    assert [number for number, _ in told] == [0, 1, 2, 3]
    assert torch.equal(told[0][1], denoiser.condition(LOW).y)
    assert torch.equal(told[-1][1], image)


@pytest.mark.parametrize("fidelity", [0.0, 0.25, 1.0])
def test_fidelity_leads_to_the_first_estimate(fidelity: float) -> None:
    denoiser = denoiser_of(REFINER)
    told: list[Tensor] = []
    free = restore(denoiser, LOW, steps=4, noise=noise, on_step=lambda _, x0_hat: told.append(x0_hat))
    assert not torch.allclose(free, told[1], atol=1e-3)
    image = restore(denoiser, LOW, steps=4, noise=noise, fidelity=fidelity)
    torch.testing.assert_close(image, free + fidelity * (told[1] - free), rtol=0, atol=1e-12)


def test_low_frequencies_are_held_where_asked() -> None:
    denoiser = denoiser_of(REFINER)
    drift = [
        float((resize.shrink(restore(denoiser, LOW, steps=2, noise=noise, match=match), 2) - LOW).abs().mean())
        for match in (False, True)
    ]
    assert drift[1] < 0.5 * drift[0]


@pytest.mark.parametrize("scale", [None, Fraction(3, 2), Fraction(4)])
def test_a_continuous_net_takes_any_factor(scale: Fraction | None) -> None:
    factor = scale or 4
    image = restore(
        denoiser_of(IDM), LOW, steps=2, noise=lambda step: noise(step, factor), scale=scale, match=scale is not None
    )
    assert image.shape == (2, 3, 6 * factor, 8 * factor)
    assert torch.isfinite(image).all()


@pytest.mark.parametrize("fidelity", [0.25, 1.0])
def test_a_finished_net_is_most_faithful_in_its_base(fidelity: float) -> None:
    denoiser = denoiser_of(REFINER)
    denoiser.traits = Traits(finished=True)
    y = denoiser.condition(LOW).y
    free = restore(denoiser, LOW, steps=1, noise=noise)
    image = restore(denoiser, LOW, steps=1, noise=noise, fidelity=fidelity)
    assert not torch.allclose(free, y, atol=1e-3)
    torch.testing.assert_close(image, free + fidelity * (y - free), rtol=0, atol=1e-12)


def test_what_is_held_is_a_trait_of_the_net() -> None:
    denoiser = denoiser_of(REFINER)
    held = {}
    for holds in ("everything", "colour"):
        denoiser.traits = Traits(holds=holds)
        image = resize.shrink(restore(denoiser, LOW, steps=2, noise=noise, match=True), 2)
        held[holds] = (float((image - LOW).abs().mean()), float((image - LOW).mean(dim=(2, 3)).abs().max()))
    assert held["everything"][0] < held["colour"][0] / 2
    assert held["colour"][1] < 0.01
