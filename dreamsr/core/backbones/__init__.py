"""Nets that can be told to denoise: one file each, one line each in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dreamsr.config import ModelConfig
from dreamsr.core.backbones.idm import IDM
from dreamsr.core.backbones.refiner import Refiner
from dreamsr.core.backbones.resshift import ResShift
from dreamsr.core.backbones.sr3 import SR3
from dreamsr.core.denoiser import REFERENCE, Denoiser
from dreamsr.core.device import Compute
from dreamsr.core.process import build_process

BACKBONES: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "refiner": lambda config: Refiner(config.refiner, scale=config.scale),
    "sr3": lambda config: SR3(config.sr3, scale=config.scale),
    "idm": lambda config: IDM(config.idm, scale=config.scale),
    "resshift": lambda config: ResShift(
        config.resshift,
        scale=config.scale,
        kappa=config.process.kappa if config.process.kind == "residual" else 0.0,
        residual=config.prediction == "x0",
    ),
}


def build_net(config: ModelConfig) -> nn.Module:
    """The backbone that a configuration describes, freshly initialised from torch's global generator."""
    return BACKBONES[config.backbone](config)


def build_denoiser(config: ModelConfig, net: nn.Module, *, compute: Compute = REFERENCE) -> Denoiser:
    """`net` with the process and the prediction that the configuration names."""
    return Denoiser(net, build_process(config.process), config.prediction, scale=config.scale, compute=compute)
