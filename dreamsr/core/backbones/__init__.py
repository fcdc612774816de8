"""Nets that can be told to denoise: a file each with its configuration, net and descriptor, and a line here."""

from __future__ import annotations

from typing import Any

from dreamsr.config import require
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.backbones.idm import IDM_ARCHITECTURE
from dreamsr.core.backbones.refiner import REFINER_ARCHITECTURE
from dreamsr.core.backbones.resshift import RESSHIFT_ARCHITECTURE
from dreamsr.core.backbones.sr3 import SR3_ARCHITECTURE

ARCHITECTURES = (REFINER_ARCHITECTURE, SR3_ARCHITECTURE, IDM_ARCHITECTURE, RESSHIFT_ARCHITECTURE)
"""All there are; a new one is registered here and nowhere else."""


def config_classes() -> dict[str, type[Any]]:
    """Name of each architecture -> the class of its configuration."""
    return {one.name: one.config for one in ARCHITECTURES}


def find_architecture(name: str) -> Architecture:
    """The one of that name. Raises ConfigError."""
    found = {one.name: one for one in ARCHITECTURES}
    require(name in found, "backbone", name, f"one of {', '.join(found)}")
    return found[name]
