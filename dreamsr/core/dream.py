"""DREAM: train the guess on inputs made from its own guesses (Zhou et al., CVPR 2024, arXiv 2312.00210).

In training a denoiser sees noisy truth, in sampling it sees what its own guesses left. DREAM closes that gap
with one extra forward pass: noise the blend of the truth and the model's own estimate, keep the truth as the
answer.

    x_t' = corrupt(lerp(x0, x0_hat, lam), y, eps, t),    lam = level(t) ** power

with the same eps, and the target is whatever explains x_t' given the true x0. For nets that predict eps this
is the paper's Algorithm 3 (eps' = eps + lam (eps - eps_hat)); for x0 the target stays x0. Power 0 is
rectification alone (the paper's DRM), infinity is plain training.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dreamsr.core.denoiser import Condition, Denoiser, evaluating
from dreamsr.core.process import spread


def dream_lam(denoiser: Denoiser, t: Tensor, power: float) -> Tensor:
    """lam [B] float64 in [0,1], rising in t; all zero for infinite power."""
    if math.isinf(power):
        return torch.zeros_like(t, dtype=torch.float64)
    return denoiser.process.level(t) ** power


def dream_inputs(
    denoiser: Denoiser, x0: Tensor, condition: Condition, eps: Tensor, t: Tensor, *, power: float
) -> tuple[Tensor, Tensor]:
    """The noisy input and the noise that explains it given x0: (x_t', eps'), both [B,3,H,W].

    x0 in [-1,1], eps N(0,1), t [B] in (0, T]. The estimate is made without gradient, in eval mode, unclipped.
    """
    process, y = denoiser.process, condition.y
    x_t = process.corrupt(x0, y, eps, t)
    if math.isinf(power):
        return x_t, eps
    with evaluating(denoiser.net):
        raw = denoiser.raw(x_t, condition, t)
    lam = spread(dream_lam(denoiser, t, power), x0)
    if denoiser.prediction == "eps":
        # Dividing by std, as below, would lose 8e-5 in float32 here; Algorithm 3 does not divide.
        rectified = eps + lam * (eps - raw)
        return process.mean(x0, y, t) + spread(process.std(t), x0) * rectified, rectified
    x0_hat = denoiser.to_x0(raw, x_t, y, t)
    # x_t' - x_t = signal * lam * (x0_hat - x0), since mean is affine in x0 with factor signal.
    shift = spread(process.signal(t), x0) * lam * (x0_hat - x0)
    return x_t + shift, eps + shift / spread(process.std(t), x0)


def dream_loss(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition,
    eps: Tensor,
    t: Tensor,
    *,
    power: float,
    loss: Literal["l1", "l2"] = "l1",
) -> Tensor:
    """Error of the net's own prediction per image, [B]: its mean absolute value, or the mean of its square.

    By l1 the paper's eq. 6 with Algorithm 3; l2 is how ResShift is trained.
    """
    x_t, explained_by = dream_inputs(denoiser, x0, condition, eps, t, power=power)
    target = denoiser.target(x0, explained_by, t)
    error = denoiser.raw(x_t, condition, t) - target
    return (error.abs() if loss == "l1" else error.square()).mean(dim=(1, 2, 3))
