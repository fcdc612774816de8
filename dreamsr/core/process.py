"""How an image becomes noise: a process is three functions of time.

                    mean(x0, y, t)             std(t)                 decay(t)
    Gaussian        sqrt(alpha_bar_t) x0       sqrt(1 - alpha_bar_t)  sqrt(alpha_bar_t)
    residual        x0 + eta_t (y - x0)        kappa sqrt(eta_t)      1

Everything else (corrupting, inverting, one step back) follows from these three and is written once.
`decay(t)/decay(s)` is the factor that the forward chain applies to x_s on its way to x_t.

Time is real: tables at whole t are derived in float64 and interpolated between, so t = 0 *is* the clean
image and continuous noise levels (SR3) need no second code path. Coefficients stay float64 on the CPU and
meet the image in its own dtype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamsr.config import require


@dataclass(frozen=True)
class ProcessConfig:
    """How an image becomes noise.

    kind: the family, "gaussian" or "residual".
    timesteps: T, how many whole times there are above 0.
    schedule: of the Gaussian family "linear" (in beta) or "cosine"; of the residual one "linear" (sqrt(eta) = t/T) or
        "geometric" (ResShift's).
    beta_first, beta_last: beta at t = 1 and t = T of the linear Gaussian schedule.
    kappa: the residual family's noise where eta = 1, a standard deviation in units of a [-1,1] image.
    sqrt_eta_first, sqrt_eta_last: sqrt(eta) at t = 1 and t = T of the geometric schedule.
    geometric_power: its shape; below 1 it rises early (ResShift's p).
    """

    kind: Literal["gaussian", "residual"] = "residual"
    timesteps: int = 1000
    schedule: Literal["linear", "cosine", "geometric"] = "linear"
    beta_first: float = 1e-6
    beta_last: float = 1e-2
    kappa: float = 0.125
    sqrt_eta_first: float = 0.02
    sqrt_eta_last: float = 0.99
    geometric_power: float = 0.3

    def __post_init__(self) -> None:
        require(1 <= self.timesteps <= 100_000, "process.timesteps", self.timesteps, "1..100000")
        require(0 < self.kappa < math.inf, "process.kappa", self.kappa, "above 0 and finite")
        require(0 < self.beta_first <= self.beta_last < 1, "process.beta_first", self.beta_first, "in (0, beta_last]")
        roots = 0 < self.sqrt_eta_first < self.sqrt_eta_last <= 1
        require(roots, "process.sqrt_eta_first", self.sqrt_eta_first, "in (0, sqrt_eta_last), both at most 1")
        power = self.geometric_power
        require(0 < power < math.inf, "process.geometric_power", power, "above 0 and finite")
        allowed = ("linear", "cosine") if self.kind == "gaussian" else ("linear", "geometric")
        require(self.schedule in allowed, "process.schedule", self.schedule, f"one of {', '.join(allowed)}")


class Process(ABC):
    """A way from the clean image (t = 0) to noise (t = T), and the one step back that fits it."""

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps

    @abstractmethod
    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The mean of x_t given x0 and y, [B,3,H,W]; affine in both."""

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        """The standard deviation of x_t given x0 and y, [B] float64."""

    @abstractmethod
    def decay(self, t: Tensor) -> Tensor:
        """How much of x_0's scale the chain keeps until t, [B] float64."""

    @abstractmethod
    def signal(self, t: Tensor) -> Tensor:
        """The factor of x0 in `mean`, [B] float64."""

    @abstractmethod
    def level(self, t: Tensor) -> Tensor:
        """The noise level that nets are told and that DREAM's power acts on, [B] float64 in [0,1]."""

    def corrupt(self, x0: Tensor, y: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = mean + std * eps, [B,3,H,W]."""
        return self.mean(x0, y, t) + spread(self.std(t), x0) * eps

    def eps_between(self, x_t: Tensor, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The noise that explains x_t given x0, [B,3,H,W]; t must be above 0."""
        return (x_t - self.mean(x0, y, t)) / spread(self.std(t), x_t)

    def x0_between(self, x_t: Tensor, eps: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The clean image that explains x_t given the noise, [B,3,H,W]; needs a signal above 0."""
        pull = self.mean(torch.zeros_like(y), y, t)
        return (x_t - spread(self.std(t), x_t) * eps - pull) / spread(self.signal(t), x_t)

    def extra_std(self, t: Tensor, s: Tensor) -> Tensor:
        """Standard deviation of the fresh noise in the ancestral step t -> s < t, [B] float64.

        With it the step samples the exact posterior q(x_s | x_t, x0): DDPM's beta-tilde (Ho et al. 2020,
        eq. 7) and ResShift's kappa^2 (eta_s / eta_t) (eta_t - eta_s) (Yue et al. 2023, eq. 6).
        """
        std_s, std_t = self.std(s), self.std(t)
        ratio = self.decay(t) * std_s / (self.decay(s) * std_t)
        return std_s * (1 - ratio**2).clamp_min(0).sqrt()

    def step(
        self,
        x_t: Tensor,
        x0_hat: Tensor,
        y: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        noise: Tensor | None,
        stochasticity: float,
    ) -> Tensor:
        """From x_t to x_s, s < t, believing `x0_hat`.

        x_s = mean(x0_hat, y, s) + sqrt(std_s^2 - extra^2) eps_hat + extra * noise, extra = stochasticity * extra_std.
        Stochasticity 1 is the posterior of DDPM and ResShift, 0 is DDIM (Song et al. 2021, eq. 12) and its
        residual analogue; at s = 0 the step returns `x0_hat` itself.
        """
        eps_hat = self.eps_between(x_t, x0_hat, y, t)
        extra = stochasticity * self.extra_std(t, s)
        kept = (self.std(s) ** 2 - extra**2).clamp_min(0).sqrt()
        x_s = self.mean(x0_hat, y, s) + spread(kept, x_t) * eps_hat
        return x_s if noise is None else x_s + spread(extra, x_t) * noise


class GaussianProcess(Process):
    """SR3, IDM, DDPM: the image fades while noise grows, variance preserving.

    `alpha_bar` is [T+1] float64 with alpha_bar[0] = 1, falling.
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        super().__init__(len(alpha_bar) - 1)
        self._root = alpha_bar.double().sqrt()

    def decay(self, t: Tensor) -> Tensor:
        return interpolate(self._root, t)

    def signal(self, t: Tensor) -> Tensor:
        return self.decay(t)

    def std(self, t: Tensor) -> Tensor:
        root = self.decay(t)
        return ((1 - root) * (1 + root)).sqrt()

    def level(self, t: Tensor) -> Tensor:
        return self.std(t)

    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 - y plays no part in this family
        return spread(self.decay(t), x0) * x0


class ResidualProcess(Process):
    """ResShift, refiner: the image moves to its enlarged small version y while a little noise grows.

    `sqrt_eta` is [T+1] float64 with sqrt_eta[0] = 0, rising to at most 1; `kappa` in units of [-1,1] images.
    """

    def __init__(self, sqrt_eta: Tensor, kappa: float) -> None:
        super().__init__(len(sqrt_eta) - 1)
        self._root = sqrt_eta.double()
        self.kappa = kappa

    def level(self, t: Tensor) -> Tensor:
        return interpolate(self._root, t)

    def signal(self, t: Tensor) -> Tensor:
        root = self.level(t)
        return (1 - root) * (1 + root)

    def std(self, t: Tensor) -> Tensor:
        return self.kappa * self.level(t)

    def decay(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return x0 + spread(self.level(t) ** 2, x0) * (y - x0)


def build_process(config: ProcessConfig) -> Process:
    """The process that a configuration describes; tables are derived in float64."""
    if config.kind == "gaussian":
        return GaussianProcess(linear_alpha_bar(config) if config.schedule == "linear" else cosine_alpha_bar(config))
    sqrt_eta = linear_sqrt_eta(config) if config.schedule == "linear" else geometric_sqrt_eta(config)
    return ResidualProcess(sqrt_eta, config.kappa)


def linear_alpha_bar(config: ProcessConfig) -> Tensor:
    """[T+1]: beta rises linearly from `beta_first` to `beta_last` (SR3: 1e-6 to 1e-2, T = 2000)."""
    beta = torch.linspace(config.beta_first, config.beta_last, config.timesteps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])


def cosine_alpha_bar(config: ProcessConfig, *, offset: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """[T+1]: alpha_bar follows a squared cosine (Nichol and Dhariwal 2021, eq. 17), beta kept below `beta_max`."""
    grid = torch.linspace(0, 1, config.timesteps + 1, dtype=torch.float64)
    curve = torch.cos((grid + offset) / (1 + offset) * math.pi / 2) ** 2
    alpha = (curve[1:] / curve[:-1]).clamp_min(1 - beta_max)
    return torch.cat([torch.ones(1, dtype=torch.float64), alpha.cumprod(0)])


def linear_sqrt_eta(config: ProcessConfig) -> Tensor:
    """[T+1]: sqrt(eta) = t/T, so the noise grows evenly and x_T = y + kappa eps exactly (the refiner's)."""
    return torch.linspace(0, 1, config.timesteps + 1, dtype=torch.float64)


def geometric_sqrt_eta(config: ProcessConfig) -> Tensor:
    """[T+1]: ResShift's schedule (Yue et al. 2023, eq. 14 and 15), sqrt(eta_t) = sqrt(eta_1) b^(beta_t)."""
    first, last, count = config.sqrt_eta_first, config.sqrt_eta_last, config.timesteps
    if count == 1:
        return torch.tensor([0, last], dtype=torch.float64)
    grid = torch.linspace(0, 1, count, dtype=torch.float64) ** config.geometric_power
    return torch.cat([torch.zeros(1, dtype=torch.float64), first * (last / first) ** grid])


def interpolate(table: Tensor, t: Tensor) -> Tensor:
    """Read `table` [T+1] at real times t [B] in 0..T, linearly between whole ones; float64, exact at whole t."""
    t = t.double()
    below = t.floor().long().clamp(0, len(table) - 1)
    above = (below + 1).clamp_max(len(table) - 1)
    return torch.lerp(table[below], table[above], t - below)


def spread(coefficient: Tensor, like: Tensor) -> Tensor:
    """[B] float64 -> [B,1,1,1] in the dtype and on the device of `like`."""
    return coefficient.to(device=like.device, dtype=like.dtype).view(-1, 1, 1, 1)
