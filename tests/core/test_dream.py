from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.dream import dream_inputs, dream_lam, dream_loss
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from tests.core.oracles import FAMILIES, PREDICTIONS, Exact, Family, Flawed, column, images, noises, wrap

POWERS = [0.0, 0.5, 1.0, 3.0]

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)
every_power = pytest.mark.parametrize("power", POWERS)


class Case:
    """One training batch with a flawed net, and its parts worked out without the code under test."""

    def __init__(
        self,
        family: Family,
        prediction: Prediction,
        *,
        exact: bool = False,
        invertible: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.family = family
        self.t = family.times(invertible=invertible)
        count = len(self.t)
        self.x0, self.y, self.eps = (part.to(dtype) for part in (images(count), images(count, seed=5), noises(count)))
        self.net = (Exact if exact else Flawed)(family, prediction, self.x0)
        self.denoiser = wrap(self.net)
        self.said: list[Tensor] = []
        self.net.register_forward_hook(lambda _net, _given, out: self.said.append(out.detach()))
        self.condition = Condition(self.y)
        self.level = self.denoiser.process.level(self.t)
        self.signal, self.pull, self.std = (
            column(f(self.level), self.x0) for f in (family.signal, family.pull, family.std)
        )
        self.x_t = self.noised(self.x0)

    def noised(self, clean: Tensor) -> Tensor:
        return self.signal * clean + self.pull * self.y + self.std * self.eps

    def lam(self, power: float) -> Tensor:
        return column(torch.tensor([level**power for level in self.level.tolist()], dtype=torch.float64), self.x0)

    def answer(self) -> Tensor:
        """What the net says in the first pass."""
        with torch.no_grad():
            return self.net(self.x_t, self.condition, self.level.to(self.x0.dtype))

    def inputs(self, power: float) -> tuple[Tensor, Tensor]:
        return dream_inputs(self.denoiser, self.x0, self.condition, self.eps, self.t, power=power)

    def loss(self, power: float) -> Tensor:
        return dream_loss(self.denoiser, self.x0, self.condition, self.eps, self.t, power=power)


# lam


@every_family
@pytest.mark.parametrize("power", [0.25, 1.0, 3.0])
def test_lam_lies_in_0_to_1_and_rises_with_t(family: Family, power: float) -> None:
    denoiser = wrap(Exact(family, "x0", images(1)))
    t = torch.arange(family.timesteps + 1, dtype=torch.float64)
    lam = dream_lam(denoiser, t, power)
    assert lam[0] == 0
    assert lam[-1] <= 1
    assert bool((lam.diff() >= 0).all())
    assert bool((lam[: family.timesteps // 2].diff() > 0).all())


@every_family
@every_power
def test_lam_is_the_level_to_the_power(family: Family, power: float) -> None:
    case = Case(family, "x0")
    torch.testing.assert_close(
        column(dream_lam(case.denoiser, case.t, power), case.x0), case.lam(power), rtol=1e-12, atol=0
    )


@every_family
def test_power_0_is_rectification_alone(family: Family) -> None:
    case = Case(family, "x0")
    assert torch.equal(dream_lam(case.denoiser, case.t, 0), torch.ones_like(case.t))


@every_family
def test_infinite_power_is_no_blend(family: Family) -> None:
    case = Case(family, "x0")
    assert torch.equal(dream_lam(case.denoiser, case.t, math.inf), torch.zeros_like(case.t))


# Inputs and targets


@every_family
@every_prediction
def test_infinite_power_is_plain_training_with_one_pass(family: Family, prediction: Prediction) -> None:
    case = Case(family, prediction)
    x_t, eps = case.inputs(math.inf)
    assert torch.equal(x_t, case.denoiser.process.corrupt(case.x0, case.y, case.eps, case.t))
    assert torch.equal(eps, case.eps)
    assert case.net.levels == []
    loss = case.loss(math.inf)
    assert len(case.net.levels) == 1
    target = case.denoiser.target(case.x0, case.eps, case.t)
    torch.testing.assert_close(loss, (case.answer() - target).abs().mean((1, 2, 3)), rtol=1e-9, atol=1e-9)


@every_family
@every_prediction
@every_power
def test_exact_model_is_a_fixed_point(family: Family, prediction: Prediction, power: float) -> None:
    case = Case(family, prediction, exact=True)
    x_t, eps = case.inputs(power)
    torch.testing.assert_close(x_t, case.x_t, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps, case.eps, rtol=0, atol=1e-7)
    torch.testing.assert_close(case.loss(power), torch.zeros_like(case.t), rtol=0, atol=1e-7)


@every_family
@every_prediction
@every_power
def test_new_noise_explains_the_new_input_given_the_truth(family: Family, prediction: Prediction, power: float) -> None:
    case = Case(family, prediction)
    x_t, eps = case.inputs(power)
    explained = case.signal * case.x0 + case.pull * case.y + case.std * eps
    torch.testing.assert_close(x_t, explained, rtol=0, atol=1e-10)
    assert float((eps - case.eps).abs().amax()) > 0.01


@every_family
@every_prediction
@every_power
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 5e-2)])
def test_truth_is_preserved(
    family: Family, prediction: Prediction, power: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Reading x_t' with the new noise, or with the net's new target, gives x0 and not the estimate."""
    case = Case(family, prediction, invertible=True, dtype=dtype)
    process = case.denoiser.process
    x_t, eps = case.inputs(power)
    assert x_t.dtype == eps.dtype == dtype
    target = case.denoiser.target(case.x0, eps, case.t)
    read = case.denoiser.to_x0(target, x_t, case.y, case.t)
    torch.testing.assert_close(read, case.x0, rtol=0, atol=tolerance)
    torch.testing.assert_close(process.x0_between(x_t, eps, case.y, case.t), case.x0, rtol=0, atol=tolerance)


@every_family
@every_prediction
@every_power
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-5)])
def test_new_input_is_the_noised_blend_of_truth_and_estimate(
    family: Family, prediction: Prediction, power: float, dtype: torch.dtype, tolerance: float
) -> None:
    case = Case(family, prediction, invertible=prediction == "eps", dtype=dtype)
    x0_hat = case.denoiser.to_x0(case.answer(), case.x_t, case.y, case.t)
    blend = case.x0 + case.lam(power) * (x0_hat - case.x0)
    x_t, _ = case.inputs(power)
    torch.testing.assert_close(x_t, case.noised(blend), rtol=tolerance, atol=tolerance)


@every_family
@every_power
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 5e-6)])
def test_eps_nets_get_the_paper_s_algorithm_3(
    family: Family, power: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Also in float32 at t = 1, where dividing by std would not do."""
    case = Case(family, "eps", dtype=dtype)
    x_t, eps = case.inputs(power)
    difference, lam = case.eps - case.said[0], case.lam(power)
    torch.testing.assert_close(x_t, case.x_t + case.std * lam * difference, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(eps, case.eps + lam * difference, rtol=tolerance, atol=tolerance)


@every_family
@every_power
def test_x0_nets_get_a_shifted_input_and_the_same_target(family: Family, power: float) -> None:
    case = Case(family, "x0")
    x_t, eps = case.inputs(power)
    expected = case.x_t + case.signal * case.lam(power) * (case.answer() - case.x0)
    torch.testing.assert_close(x_t, expected, rtol=0, atol=1e-11)
    assert torch.equal(case.denoiser.target(case.x0, eps, case.t), case.x0)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.gaussian], ids=lambda family: family.name)
@every_power
def test_v_nets_get_input_and_target_shifted_by_the_error_in_v(family: Family, power: float) -> None:
    case = Case(family, "v")
    v = case.denoiser.target(case.x0, case.eps, case.t)
    difference, lam = v - case.answer(), case.lam(power)
    x_t, eps = case.inputs(power)
    expected = case.x_t + case.signal * case.std * lam * difference
    torch.testing.assert_close(x_t, expected, rtol=0, atol=1e-10)
    target = case.denoiser.target(case.x0, eps, case.t)
    torch.testing.assert_close(target, v + case.signal**2 * lam * difference, rtol=0, atol=1e-8)


def test_estimate_is_not_clipped() -> None:
    case = Case(FAMILIES[2], "x0")
    case.net.x0 = case.x0 + 5
    x_t, _ = case.inputs(0)
    torch.testing.assert_close(x_t, case.noised(case.answer()), rtol=0, atol=1e-10)
    assert float(case.answer().amin()) > 1


# Loss and gradient


@every_family
@every_prediction
@every_power
def test_loss_is_the_mean_absolute_error_on_the_new_input_per_image(
    family: Family, prediction: Prediction, power: float
) -> None:
    case = Case(family, prediction)
    x_t, eps = case.inputs(power)
    answer = case.net(x_t, case.condition, case.level)
    target = case.denoiser.target(case.x0, eps, case.t)
    expected = torch.stack([(a - b).abs().mean() for a, b in zip(answer, target, strict=True)])
    torch.testing.assert_close(case.loss(power), expected, rtol=1e-9, atol=1e-12)


@every_family
@every_prediction
def test_gradient_is_that_with_the_estimate_as_a_constant(family: Family, prediction: Prediction) -> None:
    case = Case(family, prediction)
    case.loss(1.0).sum().backward()
    found = case.net.weight.grad
    x_t, eps = case.inputs(1.0)
    assert not x_t.requires_grad
    assert not eps.requires_grad
    target = case.denoiser.target(case.x0, eps, case.t)
    loss = (case.net(x_t, case.condition, case.level) - target).abs().mean((1, 2, 3)).sum()
    (expected,) = torch.autograd.grad(loss, case.net.weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert float(expected.abs()) > 1e-3


@every_prediction
def test_first_pass_is_in_eval_mode_without_gradient_and_the_second_is_training(prediction: Prediction) -> None:
    case = Case(FAMILIES[0], prediction)
    case.loss(1.0)
    assert case.net.in_training == [False, True]
    assert case.net.with_gradient == [False, True]
    assert torch.equal(case.net.levels[0], case.net.levels[1])


class Dropping(Flawed):
    """A flawed net with a dropout layer that is on, and one that someone froze in eval mode."""

    def __init__(self, family: Family, prediction: Prediction, x0: Tensor, *, broken: bool = False) -> None:
        super().__init__(family, prediction, x0)
        self.drop, self.frozen, self.broken = nn.Dropout(0.5), nn.Dropout(0.5).eval(), broken

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("broken")
        return self.frozen(self.drop(super().forward(x_t, condition, level)))


def dropping(*, broken: bool = False) -> tuple[Case, Dropping]:
    case = Case(FAMILIES[0], "eps")
    net = Dropping(case.family, "eps", case.x0, broken=broken)
    case.net, case.denoiser = net, wrap(net)
    return case, net


def test_dropout_is_off_in_the_first_pass() -> None:
    case, _ = dropping()
    assert torch.equal(case.inputs(1.0)[0], case.inputs(1.0)[0])


@pytest.mark.parametrize("broken", [False, True])
def test_modes_are_restored_even_if_the_net_raises(broken: bool) -> None:
    case, net = dropping(broken=broken)
    if broken:
        with pytest.raises(RuntimeError, match="broken"):
            case.inputs(1.0)
    else:
        case.inputs(1.0)
    assert net.training
    assert net.drop.training
    assert not net.frozen.training


@every_prediction
def test_nothing_given_is_edited_in_place(prediction: Prediction) -> None:
    case = Case(FAMILIES[3], prediction)
    before = [part.clone() for part in (case.x0, case.y, case.eps, case.t)]
    case.loss(1.0).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (case.x0, case.y, case.eps, case.t), strict=True))


def refiner(dtype: torch.dtype = torch.float32) -> Denoiser:
    config = ModelConfig(scale=2, sizes=RefinerConfig(4, 1, (4, 8), 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(config).to(dtype)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
    return build_denoiser(config, net)


def gradients(denoiser: Denoiser) -> dict[str, Tensor]:
    low, x0, eps = (make.float() for make in (images(2), images(2, seed=3, size=(6, 8)), noises(2, size=(6, 8))))
    t = torch.tensor([200.0, 900.0], dtype=torch.float64)
    denoiser.net.zero_grad()
    condition = denoiser.condition(low).detached()
    dream_loss(denoiser, x0, condition, eps, t, power=1.0).sum().backward()
    return {name: p.grad.clone() for name, p in denoiser.net.unet.named_parameters() if p.grad is not None}  # type: ignore[union-attr, operator]


def test_autocast_around_training_does_not_lose_gradients() -> None:
    """Weights cast in the first pass carry no gradient; the second pass must not be served from their cache."""
    from dreamsr.core.device import Compute

    denoiser = refiner()
    denoiser.compute = Compute(torch.device("cpu"), torch.bfloat16, "as the test asks")
    alone = gradients(denoiser)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(denoiser)
    assert alone.keys() == inside.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(inside[name], gradient, rtol=0.05, atol=0.02, msg=name)
