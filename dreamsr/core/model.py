"""A model: a process, a backbone, and what the net predicts; built from one configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dreamsr.config import chosen, require
from dreamsr.core.backbones import config_classes, find_architecture
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.denoiser import REFERENCE, Denoiser, Prediction, Traits
from dreamsr.core.device import Compute
from dreamsr.core.parametrisation import Parametrisation
from dreamsr.core.process import ProcessConfig, build_process


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a denoiser: the header of a weights file holds exactly this.

    backbone: the name of an architecture, one of `dreamsr.core.backbones.ARCHITECTURES`.
    scale: how many times the net enlarges; a continuous one also takes every smaller factor above 1.
    prediction: what the net predicts.
    parametrisation: what its output is, the prediction itself ("plain") or what the best linear guess around the
        enlarged small image leaves to be predicted ("centred"; see `dreamsr.core.parametrisation`).
    process: how an image becomes noise.
    sizes: the architecture's own configuration; in files it is the table called as `backbone` says.
    """

    backbone: str = "refiner"
    scale: int = 4
    prediction: Prediction = "x0"
    parametrisation: Parametrisation = "plain"
    process: ProcessConfig = field(default_factory=ProcessConfig)
    sizes: Any = field(default=None, metadata=chosen("backbone", config_classes))

    def __post_init__(self) -> None:
        kind = self.architecture.config
        if self.sizes is None:
            object.__setattr__(self, "sizes", kind())
        require(isinstance(self.sizes, kind), "sizes", self.sizes, f"a {kind.__name__} with backbone {self.backbone}")
        require(1 <= self.scale <= 16, "scale", self.scale, "1..16")
        # At T of this schedule x_T holds nothing of x0: read from eps it would be nan, and so would every sample.
        last = 1.0 if self.process.schedule == "linear" else self.process.sqrt_eta_last
        forgets = self.process.kind == "residual" and last == 1.0
        require(not (forgets and self.prediction == "eps"), "prediction", self.prediction, "x0 or v with this process")

    @property
    def architecture(self) -> Architecture:
        return find_architecture(self.backbone)


def build_net(config: ModelConfig) -> nn.Module:
    """The backbone that a configuration describes, freshly initialised from torch's global generator."""
    return config.architecture.build(config.sizes, config)


def build_denoiser(
    config: ModelConfig, net: nn.Module, *, compute: Compute = REFERENCE, traits: Traits | None = None
) -> Denoiser:
    """`net` with the process, the prediction and the parametrisation that the configuration names."""
    return Denoiser(
        net,
        build_process(config.process),
        config.prediction,
        scale=config.scale,
        parametrisation=config.parametrisation,
        compute=compute,
        traits=traits,
    )
