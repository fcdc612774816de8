"""From a preset and the command line to one training configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dreamsr.config import from_mapping, to_mapping, unused_field
from dreamsr.core.model import ModelConfig
from dreamsr.data.recipes import TomlTable
from dreamsr.data.sources import DataSource
from dreamsr.errors import UsageError
from dreamsr.training.config import TrainConfig
from dreamsr.training.presets import (
    Preset,
    load_preset,
    merged,
    parse_settings,
)


def resolve(
    name: str,
    settings: Sequence[str],
    options: Mapping[str, Any],
    dream: Mapping[str, Any],
    *,
    model: ModelConfig | None = None,
) -> TrainConfig:
    """Preset `name`, then `settings`, then the options that were given (those not None), then DREAM's.

    `dream` holds enabled, power and start as given on the command line, None where not given. `model` is that of
    weights to begin with, which stands above the preset's, and whose base is not trained anew unless that is asked for.
    Raises UsageError, also where `settings` contradicts `model`,
    and ConfigError.
    """
    preset = load_preset(name)
    own = parse_settings(settings)
    given = {key: value for key, value in options.items() if value is not None}
    asked = merged(own, given)
    base = dict(preset.values)
    if preset.named_photo and asked.get("degradation") == "photo":  # by this very name: not the preset's own table
        del base["photo"]
    values = merged(base, asked)
    if model is not None:
        _require_same_model(model, own.get("model", {}))
        values["model"] = to_mapping(model)
    _scale_stages(values, preset, asked)
    if model is not None and "base_steps" not in asked:
        values["base_steps"] = 0  # the weights have their base already
    values = merged(values, dream_table(values, preset.dream_power, dream))
    _require_used(values, own, source=f"`preset` {name}")
    return from_mapping(TrainConfig, values, source=f"`preset` {name}")


def altered(
    base: TrainConfig, settings: Sequence[str], options: Mapping[str, Any], dream: Mapping[str, Any]
) -> TrainConfig:
    """`base` with `settings`, the options that were given and DREAM's. Raises UsageError and ConfigError."""
    given = {key: value for key, value in options.items() if value is not None}
    own = parse_settings(settings)
    values = merged(merged(to_mapping(base), own), given)
    values = merged(values, dream_table(values, 1.0, dream))
    _require_used(values, own, source="command line")
    return from_mapping(TrainConfig, values, source="command line")


def _require_used(values: Mapping[str, Any], own: Mapping[str, Any], *, source: str) -> None:
    """Raise UsageError where `settings` names a field that is not there, or of a net or process that is not in use."""
    found = unused_field(TrainConfig, values, own)
    if found is None:
        return
    name, possible = found
    near = get_close_matches(name, possible, n=1) or possible
    raise UsageError(f"{source}: `settings` {name}: no such field in use; choose {' or '.join(near)}")


def dream_table(values: Mapping[str, Any], preset_power: float, given: Mapping[str, Any]) -> TomlTable:
    """The `[dream]` table that `given` asks for: enabled, power and start, None where not given; empty if none was.

    power or start alone mean enabled. Raises UsageError where enabled is False beside them.
    """
    enabled, power, start = given["enabled"], given["power"], given["start"]
    if enabled is False:
        if power is not None or start is not None:
            raise UsageError("`no_dream` cannot go with `dream.power` or `dream.start`; choose one")
        return {"dream": {"power": math.inf}}
    if enabled is None and power is None and start is None:
        return {}
    before = values.get("dream", {}).get("power", math.inf)
    chosen = power if power is not None else before if math.isfinite(float(before)) else preset_power
    return {"dream": {"power": chosen, **({} if start is None else {"start": start})}}


def data_source(data: str | None, hr: Path | None, lr: Path | None) -> DataSource:
    """The pictures of `data`, or of `hr` with `lr`. Raises UsageError unless it is exactly one of the two."""
    return DataSource(data=data, hr=hr, lr=lr)


def name_of(source: DataSource) -> str:
    """A folder name for a run on this data."""
    text = source.data if source.data is not None else str(source.hr)
    return Path(text.removeprefix("hub:").split(":")[0]).resolve().name.split(".")[0] or "run"


def finish_table(steps: int | None) -> TomlTable:
    """The `[finish]` table that lasts so many steps; empty where they were not given."""
    return {} if steps is None else {"finish": {"steps": steps}}


def _require_same_model(model: ModelConfig, asked: Mapping[str, Any]) -> None:
    """Raise UsageError where the setting `model.…` says something else than the weights to begin with."""
    old = to_mapping(model)
    new = to_mapping(from_mapping(ModelConfig, merged(old, asked), source="`settings`"))
    for key in asked:
        if old.get(key) != new.get(key):
            raise UsageError(
                f"`settings` model.{key} is {new.get(key)!r}, but `weights` has {old.get(key)!r}; leave it out, "
                "or take over what fits by `partial`"
            )


def _scale_stages(values: TomlTable, preset: Preset, given: Mapping[str, Any]) -> None:
    """A shorter or longer run keeps the preset's share of steps for the base and for finishing."""
    whole, now = preset.values.get("max_steps"), values.get("max_steps")
    if not whole or not isinstance(now, int):
        return
    base, finish = preset.values.get("base_steps", 0), preset.values.get("finish", {}).get("steps", 0)
    if base and "base_steps" not in given:
        values["base_steps"] = base * now // whole
    if finish and "steps" not in given.get("finish", {}):
        values["finish"] = {**values["finish"], "steps": finish * now // whole}
