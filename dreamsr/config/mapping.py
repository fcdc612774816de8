"""Configurations as plain JSON or TOML, and back; what is unknown is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dreamsr.config.model import IDMConfig, ModelConfig, ProcessConfig, RefinerConfig, ResShiftConfig, SR3Config
from dreamsr.config.training import DreamConfig, FinishConfig, PhotoConfig, TrainConfig
from dreamsr.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Config = TypeVar("Config", ModelConfig, TrainConfig, ProcessConfig, DreamConfig, RefinerConfig, PhotoConfig)
BACKBONE_TABLES = ("refiner", "sr3", "idm", "resshift")


def from_mapping(kind: type[Config], values: Mapping[str, Any], *, source: str) -> Config:
    """Build a `kind` from nested plain values; `source` names their origin in errors.

    Raises ConfigError for unknown keys, wrong types and impossible values.
    """
    from pydantic import ValidationError

    try:
        # JSON mode is strict about numbers and texts, yet takes objects for dataclasses and arrays for tuples.
        return _adapter(kind).validate_json(json.dumps(_numbers(values), default=str))  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise ConfigError(f"{source}: {where}: {first['msg']}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def to_mapping(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested dicts that JSON and TOML can hold (infinity as the text "inf").

    Tables of backbones that are not in use are left out.
    """
    plain = dataclasses.asdict(config)
    model = plain["model"] if isinstance(config, TrainConfig) else plain
    for table in BACKBONE_TABLES:
        if table != model["backbone"]:
            del model[table]
    return {key: _plain(value) for key, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _numbers(value: Any) -> Any:
    """The text "inf" becomes the number, everywhere."""
    if isinstance(value, Mapping):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(inner) for inner in value]
    return math.inf if value == "inf" else value


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter, with_config

    if kind not in _ADAPTERS:
        for inner in _TABLES:
            if not hasattr(inner, "__pydantic_config__"):
                with_config(ConfigDict(extra="forbid", strict=True))(inner)
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
_BACKBONES = (RefinerConfig, SR3Config, IDMConfig, ResShiftConfig)
_TABLES = (*_BACKBONES, ProcessConfig, ModelConfig, DreamConfig, FinishConfig, PhotoConfig, TrainConfig)
