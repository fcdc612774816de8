"""Centred nets: what they give with nothing learnt, with all learnt, and at the ends of time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.dream import dream_inputs, dream_lam, dream_loss
from dreamsr.core.parametrisation import DEVIATION, centred
from dreamsr.core.samplers import sample
from tests.core.oracles import FAMILIES, PREDICTIONS, Family, column, images, noises

VARIANCE = DEVIATION**2

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)
both_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])


class Silent(nn.Module):
    """A net that has learnt nothing, F = 0."""

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(x_t)


class Knowing(nn.Module):
    """Gives the F that stands for the truth, by its definition: what Wiener's guess misses, in units of its error."""

    def __init__(self, family: Family, x0: Tensor) -> None:
        super().__init__()
        self.family, self.x0 = family, x0

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        a, s = (column(f(level), x_t) for f in (self.family.signal, self.family.std))
        d = a * (self.x0 - condition.y) + x_t - a * self.x0 - column(self.family.pull(level), x_t) * condition.y
        guess = VARIANCE * a / (VARIANCE * a**2 + s**2) * d
        return (self.x0 - condition.y - guess) * (VARIANCE * a**2 + s**2).sqrt() / (DEVIATION * s)


class Erring(Knowing):
    """Knows the truth but for an error that depends on all it sees and on a weight that can learn."""

    def __init__(self, family: Family, x0: Tensor) -> None:
        super().__init__(family, x0)
        self.weight = nn.Parameter(torch.tensor(0.3, dtype=x0.dtype))

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        error = torch.sin(3 * x_t + condition.y + column(level, x_t))
        return super().forward(x_t, condition, level) + self.weight * error


class Case:
    """A batch of pictures near y, noised at many times; `invertible` leaves out a T that forgets x0."""

    def __init__(self, family: Family, dtype: torch.dtype = torch.float64, *, invertible: bool = False) -> None:
        self.family, self.process, self.t = family, family.build(), family.times(invertible=invertible)
        count = len(self.t)
        self.y = images(count, seed=5, dtype=dtype)
        self.x0 = self.y + DEVIATION * noises(count, seed=2, dtype=dtype)
        self.eps = noises(count, dtype=dtype)
        self.x_t = self.process.corrupt(self.x0, self.y, self.eps, self.t)

    def denoiser(self, net: nn.Module, prediction: Prediction) -> Denoiser:
        return Denoiser(net, self.process, prediction, scale=1, parametrisation="centred")


@every_family
@every_prediction
@both_dtypes
def test_a_net_that_says_nothing_gives_wiener_s_guess(
    family: Family, prediction: Prediction, dtype: torch.dtype, tolerance: float
) -> None:
    """The gain with the least mean squared error for x0 - y ~ N(0, v), found by trying others."""
    case = Case(family, dtype)
    a, s = case.process.signal(case.t), case.process.std(case.t)
    x0_hat = case.denoiser(Silent(), prediction)(case.x_t, Condition(case.y), case.t)
    d = column(a, case.x0) * (case.x0 - case.y) + column(s, case.x0) * case.eps
    found = ((x0_hat - case.y) * d).sum((1, 2, 3)) / d.square().sum((1, 2, 3))  # [B]
    torch.testing.assert_close(x0_hat, case.y + column(found, d) * d, rtol=tolerance, atol=tolerance)

    def error(gain: Tensor) -> Tensor:
        return (1 - gain * a) ** 2 * VARIANCE + (gain * s) ** 2

    for other in (found.double() - 0.01, found.double() + 0.01):
        assert bool((error(found.double()) < error(other)).all())


@every_family
def test_a_net_has_to_give_values_of_variance_1(family: Family) -> None:
    case = Case(family)
    y = images(1, seed=5, size=(100, 100)).expand(len(case.t), -1, -1, -1)
    x0 = y + DEVIATION * noises(len(case.t), seed=2, size=(100, 100))
    x_t = case.process.corrupt(x0, y, noises(len(case.t), size=(100, 100)), case.t)
    wanted = Knowing(family, x0)(x_t, Condition(y), case.process.level(case.t))
    torch.testing.assert_close(wanted.std((1, 2, 3)), torch.ones_like(case.t), rtol=0.02, atol=0)


@every_family
@both_dtypes
def test_both_readings_explain_the_input(family: Family, dtype: torch.dtype, tolerance: float) -> None:
    case = Case(family, dtype)
    x0_hat, eps_hat = centred(case.process, noises(len(case.t), seed=9, dtype=dtype), case.x_t, case.y, case.t)
    assert x0_hat.dtype == eps_hat.dtype == dtype
    explained = case.process.corrupt(x0_hat, case.y, eps_hat, case.t)
    torch.testing.assert_close(explained, case.x_t, rtol=tolerance, atol=tolerance)


@every_family
@every_prediction
@both_dtypes
def test_the_net_that_knows_gives_the_truth(
    family: Family, prediction: Prediction, dtype: torch.dtype, tolerance: float
) -> None:
    case = Case(family, dtype)
    denoiser, condition = case.denoiser(Knowing(family, case.x0), prediction), Condition(case.y)
    loose = 100 * tolerance  # the oracle divides by std
    torch.testing.assert_close(denoiser(case.x_t, condition, case.t), case.x0, rtol=0, atol=loose)
    target = denoiser.target(case.x0, case.eps, case.t)
    torch.testing.assert_close(denoiser.raw(case.x_t, condition, case.t), target, rtol=0, atol=loose)


@every_family
@every_prediction
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_the_net_that_knows_is_a_fixed_point_of_dream(family: Family, prediction: Prediction, power: float) -> None:
    case = Case(family)
    denoiser, condition = case.denoiser(Knowing(family, case.x0), prediction), Condition(case.y)
    x_t, eps = dream_inputs(denoiser, case.x0, condition, case.eps, case.t, power=power)
    torch.testing.assert_close(x_t, case.x_t, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps, case.eps, rtol=0, atol=1e-7)
    loss = dream_loss(denoiser, case.x0, condition, case.eps, case.t, power=power)
    torch.testing.assert_close(loss, torch.zeros_like(case.t), rtol=0, atol=1e-7)


@every_family
@pytest.mark.parametrize("power", [0.0, 1.0, math.inf])
@both_dtypes
def test_eps_nets_keep_their_target_and_algorithm_3(
    family: Family, power: float, dtype: torch.dtype, tolerance: float
) -> None:
    case = Case(family, dtype)
    denoiser, condition = case.denoiser(Erring(family, case.x0), "eps"), Condition(case.y)
    assert denoiser.target(case.x0, case.eps, case.t) is case.eps
    with torch.no_grad():
        missed = case.eps - denoiser.raw(case.x_t, condition, case.t)
    lam = column(dream_lam(denoiser, case.t, power), case.x0)
    x_t, eps = dream_inputs(denoiser, case.x0, condition, case.eps, case.t, power=power)
    expected = case.x_t + column(case.process.std(case.t), case.x0) * lam * missed
    torch.testing.assert_close(x_t, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(eps, case.eps + lam * missed, rtol=tolerance, atol=tolerance)
    loss = dream_loss(denoiser, case.x0, condition, case.eps, case.t, power=power)
    error = (eps - denoiser.raw(x_t, condition, case.t)).abs().mean((1, 2, 3))
    torch.testing.assert_close(loss, error, rtol=tolerance, atol=tolerance)
    assert float(loss.detach().amax()) > 0.01


@every_family
def test_the_estimate_is_the_one_that_the_prediction_stands_for(family: Family) -> None:
    case = Case(family, invertible=True)
    condition = Condition(case.y)
    for prediction in PREDICTIONS:
        denoiser = case.denoiser(Erring(family, case.x0), prediction)
        read = denoiser.to_x0(denoiser.raw(case.x_t, condition, case.t), case.x_t, case.y, case.t)
        torch.testing.assert_close(denoiser(case.x_t, condition, case.t), read, rtol=0, atol=1e-7)


@every_family
@pytest.mark.parametrize("place", [1e-6, 1e-3, 0.5, 1.0])
def test_float32_is_enough_at_both_ends_of_time(family: Family, place: float) -> None:
    """Where std or signal are nearly 0 a division by either would show."""
    t = torch.full((1,), place * family.timesteps, dtype=torch.float64)
    y, out, eps = images(1, seed=5), noises(1, seed=9), noises(1)
    process = family.build()
    x_t = process.corrupt(y + DEVIATION * noises(1, seed=2), y, eps, t)
    exact = centred(process, out, x_t, y, t)
    found = centred(process, out.float(), x_t.float(), y.float(), t)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES[:2], ids=lambda family: family.name)
def test_an_error_of_the_mean_is_not_multiplied_on_the_way_to_the_image(family: Family) -> None:
    """What makes eps-nets of few steps drift in colour: here one tenth too much in every value."""

    class Offset(nn.Module):
        def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:  # noqa: ARG002
            return torch.full_like(x_t, 0.1)

    case = Case(family)
    centred_net, plain_net = (
        Denoiser(Offset(), case.process, "eps", scale=1, parametrisation=kind) for kind in ("centred", "plain")
    )
    condition = Condition(case.y)
    silent = case.denoiser(Silent(), "eps")(case.x_t, condition, case.t)
    assert float((centred_net(case.x_t, condition, case.t) - silent).abs().amax()) <= 0.1 * DEVIATION + 1e-12
    exact = case.process.x0_between(case.x_t, torch.zeros_like(case.x_t), case.y, case.t)
    assert float((plain_net(case.x_t, condition, case.t) - exact).abs().amax()) > 1


@every_family
@every_prediction
def test_a_sampler_ends_at_the_truth_that_the_net_knows(family: Family, prediction: Prediction) -> None:
    x0 = images(1)
    y = images(1, seed=5)
    denoiser = Denoiser(Knowing(family, x0), family.build(), prediction, scale=1, parametrisation="centred")
    found = sample(denoiser, Condition(y), steps=4, noise=lambda i: noises(1, seed=20 + i), stochasticity=1.0)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-6)
