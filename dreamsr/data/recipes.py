"""Degradations by name: what `degradation` means to training and benchmarks.

`bicubic` is MATLAB's. `photo`, or a table that shapes it (one that comes with dreamsr, or a TOML file of fields of
`PhotoConfig`), damages every picture differently.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dreamsr.data.settings import PhotoConfig
from dreamsr.errors import ConfigError, UsageError

TomlTable = dict[str, Any]
DEGRADATIONS = ("bicubic", "photo")


@cache
def degradation_names() -> tuple[str, ...]:
    """The tables of the degradation "photo" that come with dreamsr."""
    folder = files("dreamsr") / "presets" / "degradations"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def load_degradation(name: str) -> TomlTable:
    """One of `degradation_names` as fields of `PhotoConfig`, all of them, so that none of an earlier table stays."""
    own = tomllib.loads((files("dreamsr") / "presets" / "degradations" / f"{name}.toml").read_text(encoding="utf-8"))
    return {**asdict(PhotoConfig()), **own}


def read_table(path: Path) -> TomlTable:
    """A TOML file. Raises ConfigError in one line where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from None


def degradation_table(text: str | None) -> TomlTable:
    """What `degradation` asks for: a name, or a table that shapes "photo", by name or as a TOML file.

    Raises UsageError, ConfigError.
    """
    if text is None:
        return {}
    if text in DEGRADATIONS:
        return {"degradation": text}
    if text in degradation_names():
        return {"degradation": "photo", "photo": load_degradation(text)}
    if text.endswith(".toml"):
        return {"degradation": "photo", "photo": read_table(Path(text))}
    raise UsageError(f"`degradation` is {text!r}, but it must be {possible_degradations()}")


def possible_degradations() -> str:
    """In words, for errors."""
    return f"{', '.join((*DEGRADATIONS, *degradation_names()))}, or a .toml file"
