"""Other denoisers in the place of those that weights bring, and tables of a registry."""

from dataclasses import replace

import pytest

from dreamsr.core.denoiser import Denoiser
from dreamsr.upscaling.upscaler import Upscaler

TABLE = """
[{name}]
description = "{name}"
backbone = "refiner"
scale = {scale}
degradation = "any"
steps = 1
sha256 = "{sha}"
size_bytes = 1
licence = "x"
training_data = "x"
training_data_licence = "x"
repo = "a/b"
revision = "{commit}"
{more}
"""


def table(name: str, scale: int, more: str = "") -> str:
    """The table of some weights in weights.toml; `more` are lines of it."""
    return TABLE.format(name=name, scale=scale, more=more, sha="0" * 64, commit="0" * 40)


def take(monkeypatch: pytest.MonkeyPatch, upscaler: Upscaler, denoiser: Denoiser) -> None:
    """Let an upscaler ask this denoiser."""
    net = replace(upscaler.nets.largest, denoiser=denoiser)
    monkeypatch.setattr(upscaler.nets, "choose", lambda _, scales: [net] * len(scales))
