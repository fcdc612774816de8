"""A sampler walks back from noise to the image in any number of steps.

One loop: `stochasticity` 0 is deterministic (DDIM and its residual analogue), 1 is ancestral (DDPM, ResShift).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.pixels import match_colour, match_low_frequencies

NoiseSource = Callable[[int], Tensor]
"""step number -> N(0,1) noise [B,3,H,W]; number 0 is the start, number i the noise added after step i."""


def spaced_times(timesteps: int, steps: int) -> Tensor:
    """[steps+1] float64: whole times falling evenly from T to 0.

    Raises ValueError unless 1 <= steps <= T.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must be in 1..{timesteps}, got {steps}")
    return torch.linspace(timesteps, 0, steps + 1, dtype=torch.float64).round()


def start(denoiser: Denoiser, y: Tensor, noise: Tensor) -> Tensor:
    """x_T: pure noise where the process forgets the image, y plus a little noise where it leads there."""
    final = torch.full((len(y),), denoiser.process.timesteps, dtype=torch.float64)
    # The Gaussian family still holds sqrt(alpha_bar_T) of the image at T; y stands in for it.
    return denoiser.process.corrupt(y, y, noise, final)


def sample(
    denoiser: Denoiser,
    condition: Condition,
    *,
    steps: int,
    noise: NoiseSource,
    stochasticity: float = 0.0,
    clip: bool = True,
    until: int | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """x0 [B,3,H,W] by exactly `steps` calls of the net, at falling times evenly spaced from T.

    `noise` is asked for the start, and for every later step only if `stochasticity` is above 0. `clip` keeps
    each estimate in [-1,1], as SR3 and DDPM do. `on_step` hears the number of finished steps and that step's x0_hat.
    With `until` only the first so many of the steps are taken, and what comes back is the x_t that the next would see.
    """
    y, process = condition.y, denoiser.process
    times = spaced_times(process.timesteps, steps)
    x = start(denoiser, y, noise(0))
    for i in range(steps if until is None else until):
        t, s = (times[j].expand(len(y)) for j in (i, i + 1))
        x0_hat = denoiser(x, condition, t)
        x0_hat = x0_hat.clamp(-1, 1) if clip else x0_hat
        fresh = noise(i + 1) if stochasticity > 0 and i + 1 < steps else None
        x = process.step(x, x0_hat, y, t, s, noise=fresh, stochasticity=stochasticity)
        if on_step is not None:
            on_step(i + 1, x0_hat)
    return x


def restore(
    denoiser: Denoiser,
    low: Tensor,
    *,
    steps: int,
    noise: NoiseSource,
    scale: Fraction | None = None,
    stochasticity: float = 0.0,
    fidelity: float = 0.0,
    match: bool = False,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """low [B,3,h,w] in [-1,1] -> x0 [B,3,H,W]: what is known once per image, then the walk back.

    `scale` is for continuous nets, None for the net's own. `fidelity` moves the result to what is most faithful, 1 is
    that alone: the first step's estimate, or y where the net was finished and adds texture in every step. `match` holds
    what the net's traits say to `low`. `on_step` hears 0 and y, then what that of `sample` does.
    """
    condition = denoiser.condition(low, scale)
    faithful = condition.y

    def hear(number: int, estimate: Tensor) -> None:
        nonlocal faithful
        if number == 1 and not denoiser.traits.finished:
            faithful = estimate
        if on_step is not None:
            on_step(number, estimate)

    hear(0, condition.y)
    image = sample(denoiser, condition, steps=steps, noise=noise, stochasticity=stochasticity, on_step=hear)
    if fidelity > 0:
        image = torch.lerp(image, faithful, fidelity)
    if not match:
        return image
    hold = match_low_frequencies if denoiser.traits.holds == "everything" else match_colour
    return hold(image, low, scale=scale or denoiser.scale)
