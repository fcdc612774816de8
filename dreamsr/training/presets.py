"""Named settings of training runs: TOML files in `dreamsr/presets`, or the user's own.

A preset holds fields of `TrainConfig`, and besides them `description`, `extends` (a preset to start from) and
`dream_power`, DREAM's p unless another is asked for. In `presets/degradations` lie named tables for the
degradation "photo", each with all fields of `PhotoConfig` that differ from its defaults; a preset's `degradation` may
be the name of one, which `[photo]` then changes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dreamsr.data.recipes import TomlTable, degradation_names, load_degradation, read_table
from dreamsr.errors import ConfigError, UsageError

LONGEST_CHAIN = 8


@dataclass(frozen=True)
class Preset:
    """Settings with a name: `values` are nested fields of `TrainConfig`; `named_photo` tells that `photo` is a table
    that they named."""

    name: str
    description: str
    dream_power: float
    values: TomlTable
    named_photo: bool = False


@cache
def preset_names() -> tuple[str, ...]:
    """The presets that come with dreamsr."""
    return tuple(sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """A preset by name, or from a `.toml` file. Raises UsageError for unknown names, ConfigError for broken files."""
    values = _chained(name, ())
    extra = {key: values.pop(key, default) for key, default in (("description", ""), ("dream_power", 1.0))}
    if not isinstance(extra["description"], str) or not isinstance(extra["dream_power"], int | float):
        raise ConfigError(f"preset {name}: description must be a text and dream_power a number")
    named = values.get("degradation") in degradation_names()
    values = _with_table(values) if named else values
    return Preset(name, extra["description"], float(extra["dream_power"]), values, named)


def _with_table(values: TomlTable) -> TomlTable:
    """A preset's values, the named table of its degradation in its place."""
    photo = merged(load_degradation(values["degradation"]), values.get("photo", {}))
    return {**values, "degradation": "photo", "photo": photo}


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> TomlTable:
    """`base` with the values of `change` in their places; tables are merged, everything else is replaced."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def parse_settings(texts: Iterable[str]) -> TomlTable:
    """`["model.sr3.dropout=0.1", ...]` as nested tables; values are TOML, words need no quotes. Raises UsageError."""
    result: TomlTable = {}
    for text in texts:
        path, sign, value = text.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not sign or not all(key.isidentifier() for key in keys):
            raise UsageError(f"`settings` is {text!r}, but it must be FIELD=VALUE, such as model.sr3.dropout=0.1")
        table: Any = _toml_value(value.strip())
        for key in reversed(keys):
            table = {key: table}
        result = merged(result, table)
    return result


def _chained(name: str, seen: tuple[str, ...]) -> TomlTable:
    """The values of a preset after those that it extends."""
    if name in seen or len(seen) >= LONGEST_CHAIN:
        raise ConfigError(f"preset {seen[0]}: extends itself ({' > '.join((*seen, name))})")
    if name in preset_names():
        values = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    elif name.endswith(".toml"):
        values = read_table(Path(name))
    else:
        raise UsageError(f"no preset is called {name!r}; possible: {', '.join(preset_names())}, or a .toml file")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"preset {name}: extends must be the name of a preset or a .toml file")
    return merged(_chained(parent, (*seen, name)), values)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _folder() -> Any:
    return files("dreamsr") / "presets"
