"""What many tests share: a tiny net with random parameters in a real weights file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamsr.config import ModelConfig, RefinerConfig
from dreamsr.core.backbones import build_net
from dreamsr.files.weights import save_weights
from dreamsr.tasks.upscale import Upscaler

TINY = ModelConfig(refiner=RefinerConfig(encoder_channels=8, encoder_blocks=1, channels=(8, 8), blocks_per_level=1))


def write_tiny_weights(path: Path, config: ModelConfig = TINY) -> Path:
    """A net that really does something: every parameter random, none left at zero."""
    generator = torch.Generator().manual_seed(0)
    net = build_net(config)
    state = {
        name: torch.randn(value.shape, generator=generator) * (0.3 / max(1, value[0].numel()) ** 0.5)
        for name, value in net.state_dict().items()
    }
    save_weights(path, state, config, facts={"default_steps": 2}, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a x4 refiner with random parameters; enlarges 64x64 in a few milliseconds per step."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny-x4.safetensors")


@pytest.fixture(scope="session")
def tiny_upscaler(tiny_weights: Path) -> Upscaler:
    """The tiny weights, loaded on the CPU in float32."""
    return Upscaler(tiny_weights, "cpu", precision="fp32")
