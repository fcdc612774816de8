from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamsr.core.process import Process, ProcessConfig, build_process, interpolate, spread
from tests.core.oracles import FAMILIES, Family, column, images, noises, published_steps

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
gaussian_only = pytest.mark.parametrize("family", [f for f in FAMILIES if f.gaussian], ids=lambda family: family.name)
residual_only = pytest.mark.parametrize(
    "family", [f for f in FAMILIES if not f.gaussian], ids=lambda family: family.name
)


def whole_times(family: Family) -> Tensor:
    return torch.arange(family.timesteps + 1, dtype=torch.float64)


def mean_factors(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x0 and of y in the mean, [B] each, read off with unit images."""
    one, zero = torch.ones(len(t), 1, 1, 1, dtype=torch.float64), torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
    return process.mean(one, zero, t).flatten(), process.mean(zero, one, t).flatten()


def chain(family: Family) -> tuple[Tensor, Tensor, Tensor]:
    """(factor of x0, factor of y, variance) of x_t for t = 0..T, by applying the published steps one after another."""
    of_x0, of_y, variance = [1.0], [0.0], [0.0]
    for added in published_steps(family.config):
        if family.gaussian:  # x_t = sqrt(1 - beta) x_(t-1) + sqrt(beta) eps
            of_x0.append(of_x0[-1] * math.sqrt(1 - added))
            of_y.append(0.0)
            variance.append(variance[-1] * (1 - added) + added)
        else:  # x_t = x_(t-1) + alpha (y - x0) + kappa sqrt(alpha) eps
            of_x0.append(of_x0[-1] - added)
            of_y.append(of_y[-1] + added)
            variance.append(variance[-1] + family.config.kappa**2 * added)
    return tuple(torch.tensor(v, dtype=torch.float64) for v in (of_x0, of_y, variance))  # type: ignore[return-value]


# Tables


@every_family
def test_chain_of_published_steps_equals_the_marginal(family: Family) -> None:
    process, t = family.build(), whole_times(family)
    of_x0, of_y, variance = chain(family)
    factor_x0, factor_y = mean_factors(process, t)
    torch.testing.assert_close(factor_x0, of_x0, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(factor_y, of_y, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(process.std(t) ** 2, variance, rtol=1e-9, atol=0)


@every_family
def test_decay_and_std_imply_the_published_single_steps(family: Family) -> None:
    process = family.build()
    s, t = whole_times(family)[:-1], whole_times(family)[1:]
    kept = process.decay(t) / process.decay(s)
    added = process.std(t) ** 2 - (kept * process.std(s)) ** 2
    steps = torch.tensor(published_steps(family.config), dtype=torch.float64)
    expected = steps if family.gaussian else family.config.kappa**2 * steps
    torch.testing.assert_close(
        kept, (1 - steps).sqrt() if family.gaussian else torch.ones_like(steps), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(added, expected, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize(
    ("timesteps", "alpha_bar_end", "levels"),
    [
        (2000, 4.4e-5, [0.16, 0.31, 0.68, 0.96, 0.998, 1.0]),
        (1000, 6.6e-3, [0.11, 0.22, 0.52, 0.85, 0.97, 0.997]),
    ],
)
def test_linear_schedule_has_the_values_known_for_sr3(
    timesteps: int, alpha_bar_end: float, levels: list[float]
) -> None:
    process = build_process(ProcessConfig(kind="gaussian", schedule="linear", timesteps=timesteps))
    t = timesteps * torch.tensor([0.05, 0.1, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    assert process.level(t).tolist() == pytest.approx(levels, abs=6e-3)
    assert float(process.decay(t[-1:]) ** 2) == pytest.approx(alpha_bar_end, rel=0.02)


@pytest.mark.parametrize(
    ("family", "roots"),
    [
        (
            FAMILIES[3],
            [0.02, 0.117, 0.176, 0.234, 0.292, 0.351, 0.412, 0.476, 0.542, 0.61, 0.681, 0.754, 0.83, 0.909, 0.99],
        ),
        (FAMILIES[4], [0.10, 0.52, 0.761, 0.99]),
    ],
    ids=["resshift15", "resshift4"],
)
def test_geometric_schedule_has_resshift_s_printed_values(family: Family, roots: list[float]) -> None:
    assert family.build().level(whole_times(family)[1:]).tolist() == pytest.approx(roots, abs=5.1e-4)


def test_geometric_schedule_of_one_step_ends_at_its_last_value() -> None:
    process = build_process(ProcessConfig(kind="residual", schedule="geometric", timesteps=1, sqrt_eta_last=0.9))
    assert process.level(torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.9]


@every_family
def test_level_signal_and_std_are_the_family_s_functions_of_the_level(family: Family) -> None:
    process, t = family.build(), whole_times(family)
    level = process.level(t)
    torch.testing.assert_close(process.signal(t), family.signal(level), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(process.std(t), family.std(level), rtol=1e-12, atol=0)
    assert level[0] == 0
    assert 0.9 < level[-1] <= 1
    assert bool((level.diff() > 0).all())


@every_family
def test_signal_is_the_factor_of_x0_in_the_mean(family: Family) -> None:
    process, t = family.build(), family.times()
    factor_x0, factor_y = mean_factors(process, t)
    torch.testing.assert_close(process.signal(t), factor_x0, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(factor_y, family.pull(process.level(t)), rtol=1e-12, atol=1e-15)


@every_family
def test_float32_coefficients_are_true_at_the_first_step(family: Family) -> None:
    first, one = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float32)
    step = published_steps(family.config)[0]
    truth = math.sqrt(step) * (1 if family.gaussian else family.config.kappa)
    assert float(spread(family.build().std(first), one)) == pytest.approx(truth, rel=1e-6)


@gaussian_only
def test_gaussian_family_preserves_variance(family: Family) -> None:
    process, t = family.build(), whole_times(family)
    torch.testing.assert_close(process.signal(t) ** 2 + process.std(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)


def test_refiner_ends_exactly_at_y_plus_kappa_noise() -> None:
    family = FAMILIES[2]
    x0, y, eps = images(2), images(2, seed=5), noises(2)
    end = torch.full((2,), 1000.0, dtype=torch.float64)
    torch.testing.assert_close(family.build().corrupt(x0, y, eps, end), y + 0.125 * eps, rtol=0, atol=1e-15)


# Real times


@given(st.floats(0, 1000))
def test_interpolation_is_linear_between_whole_times(t: float) -> None:
    table = torch.sin(torch.arange(1001, dtype=torch.float64))
    below = math.floor(t)
    above = min(below + 1, 1000)
    expected = float(table[below]) * (1 - (t - below)) + float(table[above]) * (t - below)
    assert float(interpolate(table, torch.tensor([t], dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)


def test_interpolation_returns_whole_entries_bit_for_bit() -> None:
    table = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(interpolate(table, torch.arange(50)), table)


# Corrupting and inverting


@every_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_time_zero_is_the_clean_image_bit_for_bit(family: Family, dtype: torch.dtype) -> None:
    x0, y, eps = images(2, dtype=dtype), images(2, seed=5, dtype=dtype), noises(2, dtype=dtype)
    assert torch.equal(family.build().corrupt(x0, y, eps, torch.zeros(2)), x0)


@every_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_corrupt_and_eps_between_are_inverse(family: Family, dtype: torch.dtype, tolerance: float) -> None:
    process, t = family.build(), family.times()
    x0, y, eps = images(len(t), dtype=dtype), images(len(t), seed=5, dtype=dtype), noises(len(t), dtype=dtype)
    x_t = process.corrupt(x0, y, eps, t)
    assert x_t.dtype == dtype
    torch.testing.assert_close(process.eps_between(x_t, x0, y, t), eps, rtol=tolerance, atol=tolerance)


@every_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-2)])
def test_corrupt_and_x0_between_are_inverse(family: Family, dtype: torch.dtype, tolerance: float) -> None:
    process, t = family.build(), family.times(invertible=True)
    x0, y, eps = images(len(t), dtype=dtype), images(len(t), seed=5, dtype=dtype), noises(len(t), dtype=dtype)
    x_t = process.corrupt(x0, y, eps, t)
    torch.testing.assert_close(process.x0_between(x_t, eps, y, t), x0, rtol=tolerance, atol=tolerance)


@every_family
def test_corrupted_image_has_the_family_s_printed_form(family: Family) -> None:
    process, t = family.build(), family.times()
    x0, y, eps = images(len(t)), images(len(t), seed=5), noises(len(t))
    level = process.level(t)
    signal, pull, std = (column(f(level), x0) for f in (family.signal, family.pull, family.std))
    torch.testing.assert_close(process.corrupt(x0, y, eps, t), signal * x0 + pull * y + std * eps, rtol=0, atol=1e-12)


# One step back


def step_moments(process: Process, x_t: Tensor, x0: Tensor, y: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, variance) of the fully stochastic step, read off with two constant noises."""
    without = process.step(x_t, x0, y, t, s, noise=torch.zeros_like(x_t), stochasticity=1)
    with_one = process.step(x_t, x0, y, t, s, noise=torch.ones_like(x_t), stochasticity=1)
    return without, (with_one - without) ** 2


@every_family
@pytest.mark.parametrize("stride", ["one", "many", "fraction"])
def test_stochastic_step_is_bayes_posterior(family: Family, stride: str) -> None:
    process, t = family.build(), family.times()[2:]
    s = {"one": t - 1, "many": (t / 2).floor().clamp_min(1), "fraction": t - 0.375}[stride]
    x0, y, x_t = images(len(t)), images(len(t), seed=5), noises(len(t))
    prior_mean, prior_variance = process.mean(x0, y, s), column(process.std(s) ** 2, x0)
    # q(x_t | x_s, x0) is Gaussian around gain * x_s + offset; the marginals at s and t leave it no freedom.
    gain = column(process.decay(t) / process.decay(s), x0)
    offset = process.mean(x0, y, t) - gain * prior_mean
    likelihood_variance = column(process.std(t) ** 2, x0) - gain**2 * prior_variance
    precision = 1 / prior_variance + gain**2 / likelihood_variance
    posterior_mean = (prior_mean / prior_variance + gain * (x_t - offset) / likelihood_variance) / precision
    mean, variance = step_moments(process, x_t, x0, y, t, s)
    torch.testing.assert_close(mean, posterior_mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(variance, (1 / precision).expand_as(variance), rtol=1e-7, atol=1e-13)


@gaussian_only
def test_stochastic_step_is_ddpm_s_printed_posterior(family: Family) -> None:
    process = family.build()
    t = torch.tensor([2, 3, family.timesteps // 2, family.timesteps], dtype=torch.float64)
    beta = torch.tensor(published_steps(family.config), dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    now, before = alpha_bar[t.long() - 1], alpha_bar[t.long() - 2]
    b = beta[t.long() - 1]
    x0, x_t = images(len(t)), noises(len(t))
    of_x0, of_x_t = before.sqrt() * b / (1 - now), (1 - b).sqrt() * (1 - before) / (1 - now)
    mean, variance = step_moments(process, x_t, x0, torch.zeros_like(x0), t, t - 1)
    torch.testing.assert_close(mean, column(of_x0, x0) * x0 + column(of_x_t, x0) * x_t, rtol=1e-7, atol=1e-9)
    beta_tilde = (1 - before) / (1 - now) * b
    torch.testing.assert_close(variance, column(beta_tilde, x0).expand_as(x0), rtol=1e-7, atol=0)
    torch.testing.assert_close(process.extra_std(t, t - 1) ** 2, beta_tilde, rtol=1e-7, atol=0)


@residual_only
def test_stochastic_step_is_resshift_s_printed_posterior(family: Family) -> None:
    process, kappa = family.build(), family.config.kappa
    t = torch.tensor([2, 3, family.timesteps], dtype=torch.float64)
    alpha = torch.tensor(published_steps(family.config), dtype=torch.float64)
    eta = alpha.cumsum(0)
    now, before, a = eta[t.long() - 1], eta[t.long() - 2], alpha[t.long() - 1]
    x0, y, x_t = images(len(t)), images(len(t), seed=5), noises(len(t))
    mean, variance = step_moments(process, x_t, x0, y, t, t - 1)
    expected = column(before / now, x0) * x_t + column(a / now, x0) * x0
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-10)
    expected_variance = kappa**2 * before / now * a
    torch.testing.assert_close(variance, column(expected_variance, x0).expand_as(x0), rtol=1e-8, atol=0)


@gaussian_only
def test_step_without_noise_is_ddim(family: Family) -> None:
    process, t = family.build(), family.times()[2:]
    s = (t / 3).floor()
    x0_hat, x_t = images(len(t)), noises(len(t))
    root_t, root_s = process.decay(t), process.decay(s)
    eps_hat = (x_t - column(root_t, x_t) * x0_hat) / column((1 - root_t**2).sqrt(), x_t)
    expected = column(root_s, x_t) * x0_hat + column((1 - root_s**2).sqrt(), x_t) * eps_hat
    x_s = process.step(x_t, x0_hat, torch.zeros_like(x_t), t, s, noise=None, stochasticity=0)
    torch.testing.assert_close(x_s, expected, rtol=1e-9, atol=1e-10)


@every_family
@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_step_with_the_truth_keeps_the_marginal(family: Family, stochasticity: float) -> None:
    """From x_t = mean + std eps the step lands at mean_s + a eps + b noise with a^2 + b^2 = std_s^2."""
    process, t = family.build(), family.times()[2:]
    s = (t / 2).floor()
    x0, y = images(len(t)), images(len(t), seed=5)
    zero, one = torch.zeros_like(x0), torch.ones_like(x0)

    def land(eps: Tensor, noise: Tensor) -> Tensor:
        x_t = process.corrupt(x0, y, eps, t)
        return process.step(x_t, x0, y, t, s, noise=noise, stochasticity=stochasticity)

    centre = land(zero, zero)
    torch.testing.assert_close(centre, process.mean(x0, y, s), rtol=0, atol=1e-10)
    old, fresh = land(one, zero) - centre, land(zero, one) - centre
    share = column(stochasticity * process.extra_std(t, s), x0)
    torch.testing.assert_close(fresh, share.expand_as(x0), rtol=1e-8, atol=1e-12)
    variance = column(process.std(s) ** 2, x0).expand_as(x0)
    torch.testing.assert_close(old**2 + fresh**2, variance, rtol=1e-8, atol=1e-12)


@every_family
@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_step_to_zero_returns_the_estimate_bit_for_bit(
    family: Family, stochasticity: float, dtype: torch.dtype
) -> None:
    process, t = family.build(), family.times()
    x0_hat, y = images(len(t), dtype=dtype), images(len(t), seed=5, dtype=dtype)
    x_t, noise = noises(len(t), dtype=dtype), noises(len(t), seed=9, dtype=dtype)
    x_0 = process.step(x_t, x0_hat, y, t, torch.zeros_like(t), noise=noise, stochasticity=stochasticity)
    assert torch.equal(x_0, x0_hat)


@every_family
def test_times_of_a_batch_do_not_touch_each_other(family: Family) -> None:
    process, t = family.build(), family.times()
    x0, y, eps = images(len(t)), images(len(t), seed=5), noises(len(t))
    together = process.corrupt(x0, y, eps, t)
    alone = [process.corrupt(x0[i : i + 1], y[i : i + 1], eps[i : i + 1], t[i : i + 1]) for i in range(len(t))]
    assert torch.equal(together, torch.cat(alone))
