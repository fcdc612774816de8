"""What a study can train: systems by name, and arms, each one system trained in one way from one seed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dreamsr.errors import UsageError
from dreamsr.training.config import TrainConfig
from dreamsr.training.resolve import resolve

COMMON = ("rate_schedule=constant", "shrink_factors=[2, 4]", "crop_candidates=3", "keep_last=1")
"""Settings of every arm: a rate that does not know how long the run will be, and crops that show something."""


@dataclass(frozen=True)
class System:
    """A preset, and the settings that make it what `about` says."""

    preset: str
    settings: tuple[str, ...]
    about: str


SYSTEMS = {
    "sr3-x0": System("sr3-x4-tiny", ("model.prediction=x0", "model.parametrisation=plain"), "SR3 that predicts x0"),
    "sr3-centred": System("sr3-x4-tiny", ("model.parametrisation=centred",), "SR3 that predicts eps, centred"),
    "sr3-eps": System("sr3-x4-tiny", ("model.parametrisation=plain",), "SR3 that predicts eps, as published"),
    "resshift": System("resshift-x4-tiny", (), "ResShift with the published kernel, which predicts x0"),
    "idm": System("idm-continuous-tiny", (), "IDM that predicts eps, centred, one net for every factor"),
}
"""All of them enlarge 16 to 64 px."""

NAME = re.compile(r"(?P<system>.+)-(?P<way>plain|p(?P<power>\d+(?:\.\d+)?))-(?P<seed>\d+)")


@dataclass(frozen=True)
class Arm:
    """One training run: a system, DREAM's power (infinity for plain training), and the seed of all that is drawn."""

    system: str
    power: float
    seed: int

    @property
    def kind(self) -> str:
        """What runs with other seeds are called alike: `sr3-x0-plain`, `sr3-x0-p1`."""
        return f"{self.system}-{way(self.power)}"

    @property
    def name(self) -> str:
        """Of its folder: `sr3-x0-p1-0`."""
        return f"{self.kind}-{self.seed}"

    def config(self, max_steps: int, settings: Sequence[str]) -> TrainConfig:
        """How it is trained, with `settings` above those of its system. Raises UsageError, ConfigError."""
        system, dreams = SYSTEMS[self.system], math.isfinite(self.power)
        dream = {"enabled": dreams, "power": self.power if dreams else None, "start": None}
        options = {"max_steps": max_steps, "seed": self.seed}
        config = resolve(system.preset, (*COMMON, *system.settings, *settings), options, dream)
        if config.rate_schedule != "constant":
            raise UsageError("a study needs rate_schedule = constant: its arms are compared at different lengths")
        return config


def way(power: float) -> str:
    """`plain`, or `p1`."""
    return "plain" if math.isinf(power) else f"p{power:g}"


def arm_called(name: str) -> Arm | None:
    """The arm of that name; None where it is none."""
    match = NAME.fullmatch(name)
    if match is None or match["system"] not in SYSTEMS:
        return None
    arm = Arm(match["system"], float(match["power"] or math.inf), int(match["seed"]))
    return arm if arm.name == name else None
