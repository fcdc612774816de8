"""Other denoisers in the place of those that weights bring."""

from dataclasses import replace

import pytest

from dreamsr.core.denoiser import Denoiser
from dreamsr.upscaling.upscaler import Upscaler


def take(monkeypatch: pytest.MonkeyPatch, upscaler: Upscaler, denoiser: Denoiser) -> None:
    """Let an upscaler ask this denoiser."""
    net = replace(upscaler.nets.largest, denoiser=denoiser)
    monkeypatch.setattr(upscaler.nets, "choose", lambda _, scales: [net] * len(scales))
