from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser, Prediction, evaluating
from dreamsr.core.device import Compute
from tests.core.oracles import FAMILIES, PREDICTIONS, Exact, Family, column, images, noises, wrap

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)


class Linear(nn.Module):
    """The smallest net: one convolution of x_t; remembers in which dtype it ran and what it was told."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.seen: list[tuple[torch.dtype, Tensor]] = []

    def encode(self, low: Tensor, _scale: Fraction | None = None) -> Condition:
        features = self.conv(low)
        return Condition(y=low.repeat_interleave(2, -1).repeat_interleave(2, -2), features=features)

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:  # noqa: ARG002
        out: Tensor = self.conv(x_t)
        self.seen.append((out.dtype, level))
        return out


@every_family
@every_prediction
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-2)])
def test_right_answer_in_any_terms_is_the_truth(
    family: Family, prediction: Prediction, dtype: torch.dtype, tolerance: float
) -> None:
    t = family.times(invertible=prediction == "eps")
    x0, y, eps = (make.to(dtype) for make in (images(len(t)), images(len(t), seed=5), noises(len(t))))
    denoiser = wrap(Exact(family, prediction, x0))
    x_t = denoiser.process.corrupt(x0, y, eps, t)
    answer = denoiser.target(x0, eps, t)
    torch.testing.assert_close(denoiser.to_x0(answer, x_t, y, t), x0, rtol=tolerance, atol=tolerance)


@every_family
@every_prediction
def test_target_is_what_an_exact_net_says(family: Family, prediction: Prediction) -> None:
    t = family.times()
    x0, y, eps = images(len(t)), images(len(t), seed=5), noises(len(t))
    denoiser = wrap(Exact(family, prediction, x0))
    x_t = denoiser.process.corrupt(x0, y, eps, t)
    torch.testing.assert_close(denoiser.raw(x_t, Condition(y), t), denoiser.target(x0, eps, t), rtol=1e-9, atol=1e-9)


@every_family
def test_v_is_the_velocity_of_salimans_and_ho(family: Family) -> None:
    t = family.times()
    x0, eps = images(len(t)), noises(len(t))
    denoiser = wrap(Exact(family, "v", x0))
    level = denoiser.process.level(t)
    expected = column(family.signal(level), x0) * eps - column(family.std(level), x0) * x0
    torch.testing.assert_close(denoiser.target(x0, eps, t), expected, rtol=0, atol=1e-11)


@every_family
@every_prediction
def test_denoiser_of_an_exact_net_returns_the_truth(family: Family, prediction: Prediction) -> None:
    t = family.times(invertible=prediction == "eps")
    x0, y = images(len(t)), images(len(t), seed=5)
    denoiser = wrap(Exact(family, prediction, x0))
    # The net works from the level alone, which at the end of the cosine schedule differs from 1 by only 1e-9.
    torch.testing.assert_close(denoiser(noises(len(t)), Condition(y), t), x0, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_net_runs_in_the_compute_dtype_and_the_rest_in_the_image_s(dtype: torch.dtype) -> None:
    net = Linear()
    compute = Compute(torch.device("cpu"), dtype, "as the test asks")
    denoiser = Denoiser(net, FAMILIES[2].build(), "x0", scale=2, compute=compute)
    low = images(2, dtype=torch.float32)
    condition = denoiser.condition(low)
    assert condition.y.dtype == torch.float32
    assert condition.features is not None
    assert condition.features.dtype == dtype
    t = torch.tensor([250.0, 1000.0], dtype=torch.float64)
    x0_hat = denoiser(noises(2, size=(6, 8), dtype=torch.float32), condition, t)
    assert x0_hat.dtype == torch.float32
    ran_in, level = net.seen[-1]
    assert ran_in == dtype
    assert level.dtype == torch.float32
    assert level.tolist() == [0.25, 1.0]


def test_detached_condition_keeps_values_and_cuts_only_y() -> None:
    y, features = (torch.ones(1, 3, 2, 2, requires_grad=True) * 2 for _ in range(2))
    condition = Condition(y, features).detached()
    assert torch.equal(condition.y, y)
    assert not condition.y.requires_grad
    assert condition.features is features


# evaluating


def mixed() -> nn.Sequential:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)), nn.Identity())
    net.train()
    net[1].eval()
    net[1][0].train()
    return net


def test_evaluating_is_eval_mode_without_gradient() -> None:
    net = mixed()
    with evaluating(net):
        assert not any(module.training for module in net.modules())
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_evaluating_restores_the_mode_of_every_submodule() -> None:
    net = mixed()
    before = [module.training for module in net.modules()]
    assert len(set(before)) == 2
    with evaluating(net):
        pass
    assert [module.training for module in net.modules()] == before


def test_evaluating_restores_the_mode_after_an_error() -> None:
    net = mixed()
    before = [module.training for module in net.modules()]
    with pytest.raises(RuntimeError, match="broken"), evaluating(net):
        raise RuntimeError("broken")
    assert [module.training for module in net.modules()] == before
    assert torch.is_grad_enabled()
