from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import pytest

from dreamsr.config import chosen, from_mapping, to_mapping
from dreamsr.core.backbones import config_classes
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.model import ModelConfig
from dreamsr.core.process import ProcessConfig
from dreamsr.data.settings import CropConfig, PhotoConfig
from dreamsr.errors import ConfigError
from dreamsr.training.config import DreamConfig, FinishConfig, TrainConfig

RESSHIFT = ModelConfig(
    scale=2,
    process=ProcessConfig(kind="residual", schedule="geometric", timesteps=15, kappa=2.0),
    sizes=RefinerConfig(channels=(8, 16), encoder_blocks=0),
)
SR3 = ModelConfig(prediction="eps", process=ProcessConfig(kind="gaussian", schedule="linear", timesteps=2000))


@pytest.mark.parametrize("config", [ModelConfig(), RESSHIFT, SR3], ids=["default", "resshift", "sr3"])
def test_model_survives_json(config: ModelConfig) -> None:
    text = json.dumps(to_mapping(config), allow_nan=False)
    assert from_mapping(ModelConfig, json.loads(text), source="header") == config


@pytest.mark.parametrize(
    "config",
    [TrainConfig(), TrainConfig(model=RESSHIFT, dream=DreamConfig(power=0.5, start=7), shrink_factors=(1, 2, 4))],
    ids=["default", "other"],
)
def test_training_survives_json_and_infinity_with_it(config: TrainConfig) -> None:
    text = json.dumps(to_mapping(config), allow_nan=False)
    assert from_mapping(TrainConfig, json.loads(text), source="config.json") == config


def test_infinity_is_written_as_text_and_read_from_text_and_number() -> None:
    assert to_mapping(TrainConfig())["dream"]["power"] == "inf"
    for value in ("inf", math.inf):
        assert from_mapping(DreamConfig, {"power": value}, source="x").power == math.inf
    assert from_mapping(DreamConfig, tomllib.loads("power = inf"), source="x").power == math.inf


def test_mapping_holds_plain_values_only() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
        if isinstance(value, list):
            return all(plain(inner) for inner in value)
        return type(value) in (str, int, float, bool)

    assert plain(to_mapping(TrainConfig()))


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, ProcessConfig, RefinerConfig, DreamConfig])
def test_nothing_given_is_the_default(kind: Any) -> None:
    assert from_mapping(kind, {}, source="x") == kind()


def test_lists_become_tuples() -> None:
    refiner = from_mapping(ModelConfig, {"refiner": {"channels": [8, 16]}}, source="x").sizes
    assert refiner.channels == (8, 16)
    assert from_mapping(TrainConfig, {"shrink_factors": [2]}, source="x").shrink_factors == (2,)
    assert isinstance(hash(refiner), int)


def test_whole_numbers_serve_as_real_ones() -> None:
    power = from_mapping(DreamConfig, {"power": 1}, source="x").power
    assert power == 1.0
    assert isinstance(power, float)


def test_values_given_are_left_alone() -> None:
    values = {"dream": {"power": "inf"}, "shrink_factors": [1]}
    from_mapping(TrainConfig, values, source="x")
    assert values == {"dream": {"power": "inf"}, "shrink_factors": [1]}


@pytest.mark.parametrize("config", [ModelConfig(), TrainConfig(), ProcessConfig(), RefinerConfig(), DreamConfig()])
def test_configurations_cannot_be_changed(config: Any) -> None:
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


def test_dream_is_enabled_by_a_finite_power() -> None:
    assert DreamConfig(power=0).enabled
    assert not DreamConfig(power=math.inf).enabled


CONFIGS = (
    *(TrainConfig, DreamConfig, FinishConfig, CropConfig, PhotoConfig),
    *(ModelConfig, ProcessConfig, *config_classes().values()),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_is_explained_once_where_it_is_declared(config: Any) -> None:
    heads = re.findall(r"^    (\w+(?:, \w+)*): ", config.__doc__, re.MULTILINE)
    assert sorted(", ".join(heads).split(", ")) == sorted(one.name for one in dataclasses.fields(config))


def test_the_list_of_configurations_is_complete() -> None:
    found = {one for config in CONFIGS for one in get_type_hints(config).values() if dataclasses.is_dataclass(one)}
    assert found < set(CONFIGS)


@dataclass(frozen=True)
class Frame:
    width_px: int
    colour: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Line:
    points: tuple[float, ...] = ()


@dataclass(frozen=True)
class Drawing:
    kind: str = "frame"
    shape: Any = field(default=None, metadata=chosen("kind", lambda: {"frame": Frame, "line": Line}))


def test_any_frozen_dataclass_is_read_and_written() -> None:
    drawing = from_mapping(Drawing, {"kind": "line", "line": {"points": [1, "inf"]}}, source="x")
    assert drawing == Drawing("line", Line((1.0, math.inf)))
    assert to_mapping(drawing) == {"kind": "line", "line": {"points": [1.0, "inf"]}}
    assert from_mapping(Drawing, {"frame": {"width_px": 3}, "line": {}}, source="x") == Drawing("frame", Frame(3))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"frame": {}}, "x: frame.width_px: Field required"),
        ({"line": {"points": ["a"]}}, "x: line.points.0: Input should be a valid number"),
        ({"line": {"colour": [0, 0, 0]}}, "x: line.colour: Unexpected keyword argument"),
        ({"shape": {}}, "x: shape: Unexpected keyword argument"),
        ({"kind": "circle"}, "x: kind: Input should be 'frame' or 'line'"),
        ({"frame": None}, "x: frame: Input should be an object"),
    ],
)
def test_what_does_not_fit_any_dataclass_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Drawing, values, source="x")
    assert str(caught.value) == told


def refused(values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        from_mapping(TrainConfig, values, source="preset.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"stpes": 3}, "stpes"),
        ({"model": {"scael": 3}}, "model.scael"),
        ({"model": {"process": {"kapa": 3}}}, "model.process.kapa"),
        ({"dream": {"p": 1}}, "dream.p"),
    ],
)
def test_unknown_keys_are_named(values: dict[str, Any], key: str) -> None:
    message = refused(values)
    assert message.startswith("preset.toml: ")
    assert key in message


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"max_steps": "many"}, "max_steps"),
        ({"max_steps": "100"}, "max_steps"),
        ({"max_steps": 1.5}, "max_steps"),
        ({"max_steps": True}, "max_steps"),
        ({"max_steps": None}, "max_steps"),
        ({"learning_rate": False}, "learning_rate"),
        ({"precision": "fp16"}, "precision"),
        ({"model": 4}, "model"),
        ({"model": {"prediction": "noise"}}, "model.prediction"),
        ({"model": {"backbone": "vit"}}, "model.backbone"),
        ({"model": {"process": {"kind": "flow"}}}, "model.process.kind"),
        ({"model": {"refiner": {"channels": 64}}}, "model.refiner.channels"),
        ({"model": {"refiner": {"channels": [64, "128"]}}}, "model.refiner.channels.1"),
        ({"dream": {"power": "infinite"}}, "dream.power"),
        ({"max_steps": tomllib.loads("day = 2026-01-01")["day"]}, "max_steps"),
    ],
)
def test_wrong_types_are_named(values: dict[str, Any], key: str) -> None:
    message = refused(values)
    assert message.startswith("preset.toml: ")
    assert key in message


def test_something_else_than_a_table_is_refused() -> None:
    assert refused([1, 2]).startswith("preset.toml: ")


IMPOSSIBLE = [
    ({"max_steps": -1}, "max_steps"),
    ({"base_steps": -1}, "base_steps"),
    ({"batch_size": 0}, "batch_size"),
    ({"crop_low_px": 7}, "crop_low_px"),
    ({"crop_candidates": 0}, "crop_candidates"),
    ({"shrink_factors": []}, "shrink_factors"),
    ({"shrink_factors": [1, 9]}, "shrink_factors"),
    ({"learning_rate": 0.0}, "learning_rate"),
    ({"save_every": 0}, "save_every"),
    ({"dream": {"power": -1.0}}, "dream.power"),
    ({"dream": {"power": math.nan}}, "dream.power"),
    ({"dream": {"start": -1}}, "dream.start"),
    ({"model": {"scale": 0}}, "scale"),
    ({"model": {"scale": 17}}, "scale"),
    ({"model": {"process": {"timesteps": 0}}}, "process.timesteps"),
    ({"model": {"process": {"kappa": 0.0}}}, "process.kappa"),
    ({"model": {"process": {"schedule": "cosine"}}}, "process.schedule"),
    ({"model": {"process": {"kind": "gaussian", "schedule": "geometric"}}}, "process.schedule"),
    ({"model": {"process": {"kind": "gaussian", "beta_first": 0.0}}}, "process.beta_first"),
    ({"model": {"process": {"kind": "gaussian", "beta_first": 0.1}}}, "process.beta_first"),
    ({"model": {"process": {"kind": "gaussian", "beta_last": 1.0}}}, "process.beta"),
    ({"model": {"refiner": {"channels": []}}}, "refiner.channels"),
    ({"model": {"refiner": {"channels": [0]}}}, "refiner.channels"),
    ({"model": {"refiner": {"encoder_channels": 0}}}, "refiner.encoder_channels"),
    ({"model": {"refiner": {"encoder_blocks": -1}}}, "refiner.encoder_blocks"),
    ({"model": {"refiner": {"blocks_per_level": 0}}}, "refiner.blocks_per_level"),
    ({"model": {"refiner": {"residual_gain": 0.0}}}, "refiner.residual_gain"),
    ({"model": {"sr3": {"channels": 24}}}, "sr3.groups"),
    ({"model": {"sr3": {"multipliers": []}}}, "sr3.multipliers"),
    ({"model": {"sr3": {"attention_levels": [5]}}}, "sr3.attention_levels"),
    ({"model": {"sr3": {"dropout": 1.0}}}, "sr3.dropout"),
    ({"model": {"idm": {"query_width": 0}}}, "idm.query_width"),
    ({"model": {"idm": {"encoder_blocks": -1}}}, "idm.encoder_blocks"),
    ({"model": {"resshift": {"heads": 5}}}, "resshift.heads"),
    ({"model": {"resshift": {"window": 0}}}, "resshift.window"),
    ({"photo": {"jpeg_quality": [95, 30]}}, "photo.jpeg_quality"),
    ({"photo": {"noise_probability": 1.5}}, "photo.noise_probability"),
    ({"accumulate": 0}, "accumulate"),
    ({"betas": [0.9, 1.0]}, "betas"),
    ({"keep_last": 0}, "keep_last"),
    ({"valid_steps": [0]}, "valid_steps"),
    ({"default_steps": 0}, "default_steps"),
]
# Accepted when these tests were first written, each with a crash or a silent nonsense further on.
IMPOSSIBLE_AS_WELL = [
    ({"seed": -1}, "seed"),
    ({"warmup_steps": -1}, "warmup_steps"),
    ({"clip_norm": 0.0}, "clip_norm"),
    ({"clip_norm": math.nan}, "clip_norm"),
    ({"learning_rate": math.inf}, "learning_rate"),
    ({"ema_halflife_steps": -1.0}, "ema_halflife_steps"),
    ({"model": {"process": {"kappa": math.inf}}}, "process.kappa"),
    ({"model": {"process": {"schedule": "geometric", "sqrt_eta_first": 0.0}}}, "process.sqrt_eta_first"),
    ({"model": {"process": {"schedule": "geometric", "sqrt_eta_first": 0.999}}}, "process.sqrt_eta_first"),
    ({"model": {"process": {"schedule": "geometric", "sqrt_eta_last": 1.5}}}, "process.sqrt_eta"),
    ({"model": {"process": {"schedule": "geometric", "geometric_power": 0.0}}}, "process.geometric_power"),
    ({"model": {"refiner": {"residual_gain": math.inf}}}, "refiner.residual_gain"),
    ({"model": {"prediction": "eps"}}, "prediction"),  # with the linear residual schedule nothing of x0 is left at T
]


@pytest.mark.parametrize(("values", "key"), IMPOSSIBLE + IMPOSSIBLE_AS_WELL)
def test_impossible_values_are_named(values: dict[str, Any], key: str) -> None:
    assert key in refused(values)


@pytest.mark.parametrize(("values", "key"), IMPOSSIBLE)
def test_impossible_values_are_named_with_their_source(values: dict[str, Any], key: str) -> None:
    message = refused(values)
    assert message.startswith("preset.toml: ")
    assert key in message
    assert "must be" in message
