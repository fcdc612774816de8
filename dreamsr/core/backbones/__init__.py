"""Nets that can be told to denoise: one file each, one line each in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dreamsr.config import ModelConfig
from dreamsr.core.backbones.refiner import Refiner
from dreamsr.core.denoiser import REFERENCE, Denoiser
from dreamsr.core.device import Compute
from dreamsr.core.process import build_process

BACKBONES: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "refiner": lambda config: Refiner(config.refiner, scale=config.scale),
}


def build_net(config: ModelConfig) -> nn.Module:
    """The backbone that a configuration describes, freshly initialised from torch's global generator."""
    return BACKBONES[config.backbone](config)


def build_denoiser(config: ModelConfig, net: nn.Module, *, compute: Compute = REFERENCE) -> Denoiser:
    """`net` with the process and the prediction that the configuration names."""
    return Denoiser(net, build_process(config.process), config.prediction, scale=config.scale, compute=compute)
