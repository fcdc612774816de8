"""What the rest of the house knows of a backbone: one descriptor, beside its net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from dreamsr.core.denoiser import Prediction
from dreamsr.core.process import ProcessConfig


class Use(Protocol):
    """What a net is built for, beside its own sizes; `dreamsr.core.model.ModelConfig` is one."""

    @property
    def scale(self) -> int: ...
    @property
    def prediction(self) -> Prediction: ...
    @property
    def process(self) -> ProcessConfig: ...


@dataclass(frozen=True)
class Architecture:
    """A kind of net.

    name: in configurations, messages and files, where `config`'s fields stand in a table so called.
    config: the frozen dataclass of its own settings, with a default for each.
    build: (an instance of `config`, its use) -> the net, freshly initialised from torch's global generator. It has
        `encode(low [B,3,h,w], scale: Fraction | None) -> Condition`, which is called once per image, and
        `__call__(x_t [B,3,H,W], condition, level [B]) -> prediction [B,3,H,W]` in its own terms, once per step.
    predicts_base: whether `encode` predicts y with weights of its own, which then want a loss; otherwise y is bicubic.
    continuous: whether it enlarges by every factor in (1, scale]; `encode` then takes any whose h * scale and
        w * scale are whole, and None for the largest. The others take None or their own scale.
    """

    name: str
    config: type[Any]
    build: Callable[[Any, Use], nn.Module]
    predicts_base: bool = False
    continuous: bool = False
