"""A denoiser guesses the clean image, whatever its net was trained to predict.

The net sees x_t, what is known about the image, and the noise level, and predicts eps, x0 or v. Samplers,
DREAM and tiling see only x0_hat. What can be computed once per image (the base y, the encoder's features) is
computed once, in `condition`, and not once per step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from dreamsr.core.device import Compute
from dreamsr.core.parametrisation import Parametrisation, centred
from dreamsr.core.process import Process, spread

Prediction = Literal["eps", "x0", "v"]
"""What a net predicts: the noise, the clean image, or v, a mixture of both (Salimans and Ho 2022)."""


Holds = Literal["everything", "colour"]
"""What of a small image its enlargement must keep: all its low frequencies, or its colours over many pixels alone."""


@dataclass(frozen=True)
class Traits:
    """What training made of a net, beyond its architecture.

    holds: "everything" where small images were clean in training; "colour" where the net learnt to repair them, whose
        damage would else be put back. finished: whether the net was finished on its own rollouts, so that already
        the first step adds texture and only the base is faithful.
    """

    holds: Holds = "everything"
    finished: bool = False

    @classmethod
    def of(cls, *, degradation: object, finish_steps: object) -> Traits:
        """What training on small pictures of a `degradation`, with so many finishing steps, makes of a net."""
        finished = isinstance(finish_steps, int) and finish_steps > 0
        return cls(holds="everything" if degradation == "bicubic" else "colour", finished=finished)


@dataclass(frozen=True)
class Condition:
    """What a net knows of one batch of images before the first step.

    y: [B,3,H,W], the enlarged small images. features: [B,C,h,w] or coarser, or None where the net needs only y.
    """

    y: Tensor
    features: Tensor | None = None

    def detached(self) -> Condition:
        """The same values with y cut from the graph: a process may start from y, not teach it."""
        return replace(self, y=self.y.detach())


REFERENCE = Compute(torch.device("cpu"), torch.float32, "cpu and float32, the reference")


class Denoiser:
    """A net and a process as one function (x_t, condition, t) -> x0_hat [B,3,H,W].

    The net alone runs in `compute.dtype`; everything around it stays in the dtype of the images.
    """

    def __init__(
        self,
        net: nn.Module,
        process: Process,
        prediction: Prediction,
        *,
        scale: int,
        parametrisation: Parametrisation = "plain",
        compute: Compute = REFERENCE,
        traits: Traits | None = None,
    ) -> None:
        self.net = net
        self.process = process
        self.prediction = prediction
        self.scale = scale
        self.parametrisation = parametrisation
        self.compute = compute
        self.traits = traits if traits is not None else Traits()

    def condition(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> what every step shares; `scale` is for continuous nets, None for the net's own."""
        with self.compute.autocast():
            condition: Condition = self.net.encode(low, scale)  # type: ignore[operator]
        return condition

    def output(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        """What the net itself gives, [B,3,H,W] in the dtype of x_t; its meaning is the parametrisation's."""
        level = self.process.level(t).to(x_t.device, x_t.dtype)
        with self.compute.autocast():
            out: Tensor = self.net(x_t, condition, level)
        return out.to(x_t.dtype)

    def raw(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        """The prediction (eps, x0 or v), [B,3,H,W] in the dtype of x_t."""
        out = self.output(x_t, condition, t)
        if self.parametrisation == "plain":
            return out
        x0_hat, eps_hat = centred(self.process, out, x_t, condition.y, t)
        return self.target(x0_hat, eps_hat, t)

    def __call__(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        if self.parametrisation == "plain":
            return self.to_x0(self.raw(x_t, condition, t), x_t, condition.y, t)
        return centred(self.process, self.output(x_t, condition, t), x_t, condition.y, t)[0]

    def to_x0(self, raw: Tensor, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The clean image that a raw prediction stands for."""
        if self.prediction == "x0":
            return raw
        if self.prediction == "eps":
            return self.process.x0_between(x_t, raw, y, t)
        a, s = spread(self.process.signal(t), x_t), spread(self.process.std(t), x_t)
        pull = self.process.mean(torch.zeros_like(y), y, t)
        return (a * (x_t - pull) - s * raw) / (a**2 + s**2)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What should have been predicted: eps, x0, or v = signal * eps - std * x0 (Salimans and Ho 2022)."""
        if self.prediction == "x0":
            return x0
        if self.prediction == "eps":
            return eps
        return spread(self.process.signal(t), x0) * eps - spread(self.process.std(t), x0) * x0


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient inside; the mode of every submodule is restored, also after an error."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
