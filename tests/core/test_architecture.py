"""A new backbone is one file (here: a class, its configuration, its descriptor) and one line in one tuple."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from dreamsr import Upscaler
from dreamsr.config import from_mapping, require, to_mapping
from dreamsr.core import backbones, resize
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.denoiser import Condition
from dreamsr.core.model import ModelConfig, build_net
from dreamsr.errors import ConfigError
from dreamsr.training.config import TrainConfig
from dreamsr.weights.file import load_weights
from tests.training.tiny_runs import draw_pictures, run


@dataclass(frozen=True)
class ToyConfig:
    """channels: of its only layer."""

    channels: int = 4

    def __post_init__(self) -> None:
        require(self.channels >= 1, "toy.channels", self.channels, "1 or more")


class Toy(nn.Module):
    """x0 = x_t + two convolutions of x_t and y."""

    def __init__(self, config: ToyConfig, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(nn.Conv2d(6, config.channels, 3, padding=1), nn.Conv2d(config.channels, 3, 1))

    def encode(self, low, _scale=None):
        return Condition(y=resize.enlarge(low, self.scale))

    def forward(self, x_t, condition, _level):
        return x_t + self.layers(torch.cat([x_t, condition.y], dim=1)).to(x_t.dtype)


TOY = Architecture("toy", ToyConfig, lambda sizes, use: Toy(sizes, scale=use.scale))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(backbones, "ARCHITECTURES", (*backbones.ARCHITECTURES, TOY))


@pytest.mark.usefixtures("registered")
def test_a_backbone_that_is_registered_trains_is_saved_and_enlarges(tmp_path: Path) -> None:
    values = {
        "model": {"backbone": "toy", "scale": 2, "toy": {"channels": 5}},
        "max_steps": 3,
        "batch_size": 2,
        "crop_low_px": 8,
        "precision": "fp32",
    }
    config = from_mapping(TrainConfig, values, source="toy.toml")
    assert config.model.sizes == ToyConfig(5)
    path = run(config, draw_pictures(tmp_path / "data"), tmp_path / "run")
    weights = load_weights(path)
    assert weights.config == config.model
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        fresh = build_net(config.model)
    assert not torch.equal(fresh.layers[0].weight, weights.net.layers[0].weight)
    image = torch.rand(3, 6, 7)
    assert Upscaler(path, device="cpu")(image, 2, steps=2).shape == (3, 12, 14)


@pytest.mark.usefixtures("registered")
def test_its_table_is_checked_as_all_others_are() -> None:
    with pytest.raises(ConfigError, match=r"x: toy\.channels is 0, but it must be 1 or more"):
        from_mapping(ModelConfig, {"toy": {"channels": 0}}, source="x")
    with pytest.raises(ConfigError, match=r"x: toy\.widths: Unexpected keyword argument"):
        from_mapping(ModelConfig, {"backbone": "toy", "toy": {"widths": 1}}, source="x")


def test_it_is_unknown_where_it_is_not_registered() -> None:
    with pytest.raises(ConfigError, match="x: backbone: Input should be 'refiner', 'sr3', 'idm' or 'resshift'"):
        from_mapping(ModelConfig, {"backbone": "toy"}, source="x")
    with pytest.raises(ConfigError, match="x: toy: Unexpected keyword argument"):
        from_mapping(ModelConfig, {"toy": {}}, source="x")
    with pytest.raises(ConfigError, match="backbone is 'toy', but it must be one of refiner, sr3, idm, resshift"):
        ModelConfig(backbone="toy")


def test_a_model_holds_the_table_of_its_own_backbone_alone() -> None:
    model = from_mapping(ModelConfig, {"backbone": "sr3", "refiner": {"channels": [8]}}, source="x")
    assert list(to_mapping(model)) == ["backbone", "scale", "prediction", "parametrisation", "process", "sr3"]
    with pytest.raises(ConfigError, match="a SR3Config with backbone sr3"):
        ModelConfig(backbone="sr3", sizes=RefinerConfig())
