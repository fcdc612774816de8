"""What weights hold, whether they were finished, and `--denoise`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamsr.config import to_mapping
from dreamsr.core.denoiser import Traits
from dreamsr.errors import UsageError, WeightsError
from dreamsr.training.config import FinishConfig, TrainConfig
from dreamsr.upscaling.nets import mixed
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights import registry
from dreamsr.weights.file import load_weights, save_weights
from tests.conftest import TINY, write_tiny_weights
from tests.upscaling.stand_ins import table


@pytest.mark.parametrize(
    ("facts", "traits"),
    [
        ({}, Traits()),
        ({"train": "photo"}, Traits()),
        ({"train": {"finish": [3]}}, Traits()),
        ({"train": to_mapping(TrainConfig(model=TINY))}, Traits()),
        ({"train": to_mapping(TrainConfig(model=TINY, degradation="photo"))}, Traits("colour")),
        (
            {"train": to_mapping(TrainConfig(model=TINY, max_steps=9, finish=FinishConfig(steps=4)))},
            Traits(finished=True),
        ),
    ],
)
def test_a_header_tells_what_training_made_of_a_net(facts: dict[str, Any], traits: Traits, tmp_path: Path) -> None:
    own = load_weights(write_tiny_weights(tmp_path / "a.safetensors"))
    save_weights(tmp_path / "b.safetensors", own.net.state_dict(), TINY, facts=facts, dtype=torch.float32)
    assert load_weights(tmp_path / "b.safetensors").traits == traits
    assert Upscaler(tmp_path / "b.safetensors", "cpu").denoiser.traits == traits


def test_a_configuration_and_its_header_say_the_same() -> None:
    config = TrainConfig(model=TINY, degradation="photo", max_steps=9, finish=FinishConfig(steps=4))
    assert config.traits == Traits("colour", finished=True)


REGISTRY = table("clean", 4) + table("photo", 4, 'denoise_partner = "clean"')


@pytest.fixture
def partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two weights of one net, known by name, of which the second has the first for partner."""
    places = {"photo": write_tiny_weights(tmp_path / "photo.safetensors")}
    own = load_weights(places["photo"]).net.state_dict()
    places["clean"] = tmp_path / "clean.safetensors"
    moved = {name: value * 0.5 for name, value in own.items()}
    save_weights(places["clean"], moved, TINY, facts={"default_steps": 2}, dtype=torch.float32)
    (tmp_path / "weights.toml").write_text(REGISTRY)
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "weights.toml")
    from dreamsr.upscaling import nets

    monkeypatch.setattr(nets, "resolve_weights", lambda name, **_: places[name])
    return places


def test_denoise_goes_from_the_partner_to_the_weights(partners: dict[str, Path]) -> None:
    small = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)

    def run(weights: str, denoise: float) -> np.ndarray:
        return np.asarray(Upscaler(weights, "cpu", precision="fp32", denoise=denoise)(small, 4)).astype(float)

    assert (run("photo", 0) == run("clean", 1)).all()
    half = Upscaler("photo", "cpu", precision="fp32", denoise=0.5).weights.net.state_dict()
    own = load_weights(partners["photo"]).net.state_dict()
    for name, value in half.items():
        torch.testing.assert_close(value, 0.75 * own[name])
    assert (run("photo", 0.5) != run("photo", 1)).any()


@pytest.mark.usefixtures("partners")
@pytest.mark.parametrize(
    ("weights", "denoise"), [("clean", 0.5), ("photo", 1.5), ("photo", -0.1), ("photo", float("nan"))]
)
def test_denoise_without_a_partner_or_out_of_range_is_refused(weights: str, denoise: float) -> None:
    with pytest.raises(UsageError, match=r"^`denoise` .*(photo|0\.\.1)"):
        Upscaler(weights, "cpu", denoise=denoise)


@pytest.mark.usefixtures("partners")
def test_a_missing_partner_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamsr.upscaling import nets

    monkeypatch.setattr(nets, "resolve_weights", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(UsageError, match=r"^`denoise` works with"):
        Upscaler("clean", "cpu", denoise=0.5)


def test_other_nets_are_not_mixed() -> None:
    with pytest.raises(WeightsError, match="other is another net"):
        mixed({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, 0.5, "other")


@pytest.mark.parametrize("partner", ["photo", "nothing"])
def test_a_partner_is_another_table(partner: str) -> None:
    text = REGISTRY.replace('denoise_partner = "clean"', f'denoise_partner = "{partner}"')
    with pytest.raises(WeightsError, match=r"\[photo\]: denoise_partner"):
        registry.parse_registry(text, source="weights.toml")
