from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dreamsr.core.denoiser import Condition, Prediction
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import sample, spaced_times, start
from tests.core.oracles import FAMILIES, PREDICTIONS, Exact, Family, Flawed, GaussianData, Oracle, images, noises, wrap

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
every_stochasticity = pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
MEAN, SPREAD = 0.3, 0.4


class Recorded:
    """A source of noise that remembers for which steps it was asked."""

    def __init__(self, count: int, *, gain: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        self.count, self.gain, self.dtype = count, gain, dtype
        self.asked: list[int] = []

    def __call__(self, step: int) -> Tensor:
        self.asked.append(step)
        return self.gain * noises(self.count, seed=100 + step, dtype=self.dtype)


def some_steps(family: Family) -> list[int]:
    last = family.timesteps
    return sorted({1, 2, 3, min(7, last), min(25, last), last if last <= 20 else 50})


# Times


@pytest.mark.parametrize("timesteps", [1, 2, 3, 4, 15, 64, 1000])
def test_times_are_whole_and_fall_strictly_from_the_end_to_zero(timesteps: int) -> None:
    for steps in range(1, timesteps + 1):
        times = spaced_times(timesteps, steps)
        assert times.dtype == torch.float64
        assert len(times) == steps + 1
        assert times[0] == timesteps
        assert times[-1] == 0
        gaps = -times.diff()
        assert torch.equal(gaps, gaps.round())
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 2


@pytest.mark.parametrize("steps", [-1, 0, 16])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.15, got {steps}"):
        spaced_times(15, steps)
    x0 = images(1)
    with pytest.raises(ValueError, match="steps"):
        sample(wrap(Exact(FAMILIES[3], "x0", x0)), Condition(x0), steps=steps, noise=Recorded(1))


@every_family
def test_start_is_the_noised_y(family: Family) -> None:
    y, noise = images(2), noises(2)
    denoiser = wrap(Exact(family, "x0", y))
    level = denoiser.process.level(torch.full((1,), family.timesteps, dtype=torch.float64))
    expected = (family.signal(level) + family.pull(level)) * y + family.std(level) * noise
    torch.testing.assert_close(start(denoiser, y, noise), expected, rtol=0, atol=1e-11)


# What is asked of the net and of the noise


@every_family
@every_stochasticity
def test_net_is_called_once_per_step_at_strictly_falling_times_from_the_end(
    family: Family, stochasticity: float
) -> None:
    for steps in some_steps(family):
        net = Exact(family, "x0", images(2))
        denoiser = wrap(net)
        heard: list[int] = []
        sample(
            denoiser,
            Condition(images(2, seed=5)),
            steps=steps,
            noise=Recorded(2),
            stochasticity=stochasticity,
            on_step=lambda done, _x0_hat: heard.append(done),  # noqa: B023 - called before the next turn
        )
        expected = denoiser.process.level(spaced_times(family.timesteps, steps)[:-1])
        assert torch.equal(torch.stack(net.levels), expected[:, None].expand(-1, 2))
        assert bool((expected.diff() < 0).all())
        assert expected[0] == denoiser.process.level(torch.tensor([float(family.timesteps)]))
        assert heard == list(range(1, steps + 1))


def test_deterministic_sampler_asks_for_the_starting_noise_only() -> None:
    noise = Recorded(1)
    sample(wrap(Exact(FAMILIES[3], "x0", images(1))), Condition(images(1)), steps=6, noise=noise)
    assert noise.asked == [0]


@pytest.mark.parametrize("stochasticity", [1e-3, 0.5, 1.0])
def test_stochastic_sampler_asks_for_noise_after_every_step_but_the_last(stochasticity: float) -> None:
    noise, net = Recorded(1), Exact(FAMILIES[3], "x0", images(1))
    sample(wrap(net), Condition(images(1)), steps=6, noise=noise, stochasticity=stochasticity)
    assert noise.asked == [0, 1, 2, 3, 4, 5]


def test_listener_gets_each_step_s_estimate() -> None:
    x0 = images(1)
    heard: list[Tensor] = []
    denoiser = wrap(Exact(FAMILIES[3], "x0", x0))
    sample(denoiser, Condition(x0), steps=3, noise=Recorded(1), on_step=lambda _done, x0_hat: heard.append(x0_hat))
    assert len(heard) == 3
    assert all(torch.equal(x0_hat, x0) for x0_hat in heard)


# An exact model


READABLE = [(f, p) for f in FAMILIES for p in PREDICTIONS if not (p == "eps" and f.forgets)]


@pytest.mark.parametrize(("family", "prediction"), READABLE, ids=[f"{f.name}-{p}" for f, p in READABLE])
@every_stochasticity
@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_exact_model_recovers_the_truth_in_any_number_of_steps_from_any_start(
    family: Family, prediction: Prediction, stochasticity: float, gain: float
) -> None:
    x0, y = images(2), images(2, seed=5)
    denoiser = wrap(Exact(family, prediction, x0))
    for steps in some_steps(family):
        noise = Recorded(2, gain=gain)
        found = sample(denoiser, Condition(y), steps=steps, noise=noise, stochasticity=stochasticity, clip=False)
        torch.testing.assert_close(found, x0, rtol=0, atol=1e-6 if steps == 1 else 1e-9)


@pytest.mark.parametrize("family", [FAMILIES[1], FAMILIES[3]], ids=lambda family: family.name)
def test_exact_model_recovers_the_truth_in_all_steps(family: Family) -> None:
    x0, y = images(1), images(1, seed=5)
    denoiser = wrap(Exact(family, "v", x0))
    steps = family.timesteps
    found = sample(denoiser, Condition(y), steps=steps, noise=Recorded(1), stochasticity=0.5, clip=False)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-10)


@every_family
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_result_is_the_last_estimate_bit_for_bit(family: Family, steps: int) -> None:
    x0 = images(2, dtype=torch.float32)
    y = images(2, seed=5, dtype=torch.float32)
    net = Exact(family, "x0", x0)
    found = sample(wrap(net), Condition(y), steps=steps, noise=Recorded(2, dtype=torch.float32), stochasticity=1)
    assert found.dtype == torch.float32
    assert torch.equal(found, x0)


def test_clip_keeps_each_estimate_in_range() -> None:
    x0 = 3 * images(2)
    denoiser = wrap(Exact(FAMILIES[3], "x0", x0))
    noise = Recorded(2)
    assert torch.equal(sample(denoiser, Condition(x0), steps=4, noise=noise), x0.clamp(-1, 1))
    assert torch.equal(sample(denoiser, Condition(x0), steps=4, noise=noise, clip=False), x0)


# Gaussian data, for which the exact answer is known

SMOOTH = [
    FAMILIES[0],
    FAMILIES[1],
    FAMILIES[2],
    Family("noisy refiner", ProcessConfig(kind="residual", schedule="linear", timesteps=1000, kappa=1.0)),
]
every_smooth_family = pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)


def transport_error(family: Family, prediction: Prediction, steps: int) -> float:
    """Largest distance from where the exact probability flow carries the same start."""
    net = GaussianData(family, prediction, mean=MEAN, spread=SPREAD)
    denoiser, y = wrap(net), images(2, seed=5)
    noise = Recorded(2)
    found = sample(denoiser, Condition(y), steps=steps, noise=noise, clip=False)
    level = denoiser.process.level(torch.full((1,), family.timesteps, dtype=torch.float64))
    exact = net.transport(start(denoiser, y, noise(0)), y, level)
    return float((found - exact).abs().amax())


@every_smooth_family
def test_error_halves_when_steps_double(family: Family) -> None:
    errors = [transport_error(family, "x0", steps) for steps in (25, 50, 100, 200)]
    assert errors[0] < 0.5
    for coarse, fine in pairwise(errors):
        assert 1.75 < coarse / fine < 2.25


@every_family
def test_samplers_see_no_difference_between_predictions(family: Family) -> None:
    errors = [transport_error(family, prediction, 4) for prediction in ("x0", "v")]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def output_variance(family: Family, steps: int, stochasticity: float) -> float:
    """The exact variance of the output, which for a linear net is linear in its noises: one batch row for each."""
    net = GaussianData(family, "x0", mean=MEAN, spread=SPREAD)
    y = torch.full((steps + 1, 3, 1, 1), 0.1, dtype=torch.float64)

    def unit(step: int) -> Tensor:
        """Row `step` gets a one; the last row gets no noise at all."""
        noise = torch.zeros_like(y)
        noise[step] = 1
        return noise

    out = sample(wrap(net), Condition(y), steps=steps, noise=unit, stochasticity=stochasticity, clip=False)[:, 0, 0, 0]
    return float(((out[:-1] - out[-1]) ** 2).sum())


@every_smooth_family
@pytest.mark.parametrize("stochasticity", [0.5, 1.0])
def test_stochastic_sampler_reaches_the_data_s_variance(family: Family, stochasticity: float) -> None:
    errors = [abs(output_variance(family, steps, stochasticity) / SPREAD**2 - 1) for steps in (50, 100, 200)]
    assert errors[-1] < 0.1
    assert errors[0] > 1.6 * errors[1] > 1.6 * 1.6 * errors[2]


# Same noise, same bytes


def sampled(net: Oracle, y: Tensor, noise: Tensor, stochasticity: float) -> Tensor:
    """`noise` [steps,B,3,H,W]; the last step needs none."""
    return sample(
        wrap(net),
        Condition(y),
        steps=len(noise),
        noise=lambda step: noise[step],
        stochasticity=stochasticity,
    ).detach()


@every_family
@every_stochasticity
def test_same_noise_gives_the_same_bytes_alone_and_in_a_batch(family: Family, stochasticity: float) -> None:
    x0, y = images(3, dtype=torch.float32), images(3, seed=5, dtype=torch.float32)
    noise = torch.stack([noises(3, seed=step, dtype=torch.float32) for step in range(4)])
    together = sampled(Flawed(family, "x0", x0), y, noise, stochasticity)
    again = sampled(Flawed(family, "x0", x0), y, noise, stochasticity)
    assert torch.equal(together, again)
    for i in range(3):
        one = slice(i, i + 1)
        alone = sampled(Flawed(family, "x0", x0[one]), y[one], noise[:, one], stochasticity)
        assert torch.equal(alone, together[one])


def test_nothing_given_is_edited_in_place() -> None:
    x0, y, noise = images(1), images(1, seed=5), noises(4)[:, None]
    before = [part.clone() for part in (x0, y, noise)]
    sampled(Flawed(FAMILIES[3], "x0", x0), y, noise, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, (x0, y, noise), strict=True))


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    sampled(Flawed(FAMILIES[0], "x0", images(1)), images(1, seed=5), noises(4)[:, None], 1.0)
    assert torch.equal(torch.random.get_rng_state(), before)
