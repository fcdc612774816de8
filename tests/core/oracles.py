"""What the core is measured against: schedules written out from the papers, and nets with a known answer.

Nothing here calls `dreamsr.core.process`: a net sees x_t, y and the noise level, and works its coefficients out itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.process import Process, ProcessConfig, build_process


@dataclass(frozen=True)
class Family:
    """A process by name: its configuration, and its coefficients as functions of the noise level."""

    name: str
    config: ProcessConfig

    @property
    def timesteps(self) -> int:
        return self.config.timesteps

    @property
    def gaussian(self) -> bool:
        return self.config.kind == "gaussian"

    @property
    def forgets(self) -> bool:
        """Whether nothing of x0 is left at T, so that x0 cannot be read from eps there."""
        return self.name == "refiner"

    def build(self) -> Process:
        return build_process(self.config)

    def times(self, *, invertible: bool = False) -> Tensor:
        """Some times of 1..T, with both ends and one that is not whole; `invertible` leaves out a T that forgets."""
        last = self.timesteps
        times = [1, 1.25, 2, last / 3, last / 2, last - 1, last]
        if invertible and self.forgets:
            times.pop()
        return torch.tensor(times, dtype=torch.float64)

    def signal(self, level: Tensor) -> Tensor:
        return (1 - level**2).sqrt() if self.gaussian else 1 - level**2

    def pull(self, level: Tensor) -> Tensor:
        """The share of y in the mean."""
        return torch.zeros_like(level) if self.gaussian else level**2

    def std(self, level: Tensor) -> Tensor:
        return level if self.gaussian else self.config.kappa * level


FAMILIES = [
    Family("sr3", ProcessConfig(kind="gaussian", schedule="linear", timesteps=2000)),
    Family("cosine", ProcessConfig(kind="gaussian", schedule="cosine", timesteps=1000)),
    Family("refiner", ProcessConfig(kind="residual", schedule="linear", timesteps=1000, kappa=0.125)),
    Family("resshift15", ProcessConfig(kind="residual", schedule="geometric", timesteps=15, kappa=2.0)),
    Family(
        "resshift4", ProcessConfig(kind="residual", schedule="geometric", timesteps=4, kappa=2.0, sqrt_eta_first=0.1)
    ),
]
PREDICTIONS: list[Prediction] = ["eps", "x0", "v"]


def published_steps(config: ProcessConfig) -> list[float]:
    """What each forward step adds, t = 1..T: beta_t of DDPM, or alpha_t = eta_t - eta_(t-1) of ResShift."""
    last = config.timesteps
    if config.schedule == "cosine":  # Nichol and Dhariwal 2021, eq. 17 and the line below it

        def f(t: float) -> float:
            return math.cos((t / last + 0.008) / 1.008 * math.pi / 2) ** 2

        return [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, last + 1)]
    if config.kind == "gaussian":
        slope = (config.beta_last - config.beta_first) / (last - 1)
        return [config.beta_first + slope * t for t in range(last)]
    if config.schedule == "linear":
        eta = [(t / last) ** 2 for t in range(last + 1)]
    else:  # Yue et al. 2023, eq. 14 and 15
        first = config.sqrt_eta_first
        b = math.exp(math.log(config.sqrt_eta_last / first) / (last - 1))
        powers = [((t - 1) / (last - 1)) ** config.geometric_power * (last - 1) for t in range(1, last + 1)]
        eta = [0.0] + [(first * b**power) ** 2 for power in powers]
    return [after - before for before, after in pairwise(eta)]


def column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, 1, 1, 1)


def images(count: int, *, seed: int = 0, size: tuple[int, int] = (3, 4), dtype: torch.dtype = torch.float64) -> Tensor:
    """[count,3,*size] uniform in [-1,1]."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, *size, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


def noises(count: int, *, seed: int = 1, size: tuple[int, int] = (3, 4), dtype: torch.dtype = torch.float64) -> Tensor:
    """[count,3,*size] of N(0,1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


class Oracle(nn.Module):
    """A net that makes an estimate of x0 and says it in the terms of `prediction`."""

    scale = 1

    def __init__(self, family: Family, prediction: Prediction) -> None:
        super().__init__()
        self.family = family
        self.prediction = prediction
        self.levels: list[Tensor] = []
        self.in_training: list[bool] = []
        self.with_gradient: list[bool] = []

    def estimate(self, x_t: Tensor, y: Tensor, level: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        self.levels.append(level)
        self.in_training.append(self.training)
        self.with_gradient.append(torch.is_grad_enabled())
        coefficients = (f(level) for f in (self.family.signal, self.family.pull, self.family.std))
        signal, pull, std = (column(c, x_t) for c in coefficients)
        x0_hat = self.estimate(x_t, condition.y, level)
        if self.prediction == "x0":
            return x0_hat
        eps_hat = (x_t - signal * x0_hat - pull * condition.y) / std
        return eps_hat if self.prediction == "eps" else signal * eps_hat - std * x0_hat


class Exact(Oracle):
    """Knows the truth."""

    def __init__(self, family: Family, prediction: Prediction, x0: Tensor) -> None:
        super().__init__(family, prediction)
        self.x0 = x0

    def estimate(self, x_t: Tensor, y: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002
        return self.x0.to(x_t.dtype)


class Flawed(Exact):
    """Knows the truth but for an error that depends on all it sees and on a weight that can learn."""

    def __init__(self, family: Family, prediction: Prediction, x0: Tensor) -> None:
        super().__init__(family, prediction, x0)
        self.weight = nn.Parameter(torch.tensor(0.7, dtype=x0.dtype))

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        error = torch.sin(3 * x_t + condition.y + column(level, x_t) + self.weight)
        return super().forward(x_t, condition, level) + self.weight * error


class GaussianData(Oracle):
    """The optimal denoiser where every value of x0 is N(mean, spread^2), whatever y is."""

    def __init__(self, family: Family, prediction: Prediction, *, mean: float, spread: float) -> None:
        super().__init__(family, prediction)
        self.mean = mean
        self.spread = spread

    def estimate(self, x_t: Tensor, y: Tensor, level: Tensor) -> Tensor:
        coefficients = (f(level) for f in (self.family.signal, self.family.pull, self.family.std))
        signal, pull, std = (column(c, x_t) for c in coefficients)
        gain = self.spread**2 * signal / ((signal * self.spread) ** 2 + std**2)
        return self.mean + gain * (x_t - signal * self.mean - pull * y)

    def transport(self, x_T: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """Where the probability flow carries x_T: the same number of standard deviations from the mean."""
        coefficients = (f(level) for f in (self.family.signal, self.family.pull, self.family.std))
        signal, pull, std = (column(c, x_T) for c in coefficients)
        spread_at_end = ((signal * self.spread) ** 2 + std**2).sqrt()
        return self.mean + self.spread * (x_T - signal * self.mean - pull * y) / spread_at_end


def wrap(net: Oracle) -> Denoiser:
    return Denoiser(net, net.family.build(), net.prediction, scale=1)
