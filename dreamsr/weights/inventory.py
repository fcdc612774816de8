"""Which weights there are, which of them lie on this machine, and whether those are what weights.toml says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamsr.errors import DreamsrError, WeightsError, printable
from dreamsr.weights.registry import WeightsEntry, bundled_file, registry, unknown_weights
from dreamsr.weights.resolve import local_copy, local_file

if TYPE_CHECKING:
    from dreamsr.core.model import ModelConfig

State = Literal["bundled", "cached", "remote", "missing", "not published yet"]


@dataclass(frozen=True)
class Holding:
    """One table of weights.toml and what this machine has of it."""

    entry: WeightsEntry
    state: State
    path: Path | None


@dataclass(frozen=True)
class Verdict:
    """One file after a check; `problem` is "" for a good one."""

    name: str
    path: Path
    problem: str


def holdings(names: Sequence[str] = ()) -> list[Holding]:
    """All tables, or those of `names`; never touches the network. Raises WeightsError for an unknown name."""
    tables = registry()
    for name in names:
        if name not in tables:
            raise unknown_weights(name)
    return [_holding(entry) for entry in ([tables[name] for name in names] if names else tables.values())]


def _holding(entry: WeightsEntry) -> Holding:
    path = local_copy(entry)
    if entry.bundled:
        return Holding(entry, "bundled" if path else "missing", path)
    if not entry.published:
        return Holding(entry, "not published yet", None)
    return Holding(entry, "cached" if path else "remote", path)


def verify(names: Sequence[str] = ()) -> list[Verdict]:
    """Check every bundled and cached file, or those of `names`: bytes, structure, backbone and scale."""
    verdicts = []
    for holding in holdings(names):
        if holding.state == "missing":
            place = bundled_file(holding.entry.name)
            verdicts.append(Verdict(holding.entry.name, place, f"{printable(place)} is missing; install dreamsr again"))
        if holding.path is None:
            continue
        try:
            _check(holding.entry, holding.path)
            verdicts.append(Verdict(holding.entry.name, holding.path, ""))
        except DreamsrError as error:
            verdicts.append(Verdict(holding.entry.name, holding.path, str(error)))
    return verdicts


def _check(entry: WeightsEntry, path: Path) -> None:
    from dreamsr.weights.file import load_weights

    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256 or len(content) != entry.size_bytes:
        raise WeightsError(f"{printable(path)}: {len(content)} bytes of sha256 {found[:12]}, not those of weights.toml")
    config = load_weights(path).config
    if (config.backbone, config.scale) != (entry.backbone, entry.scale):
        told = f"is {config.backbone} x{config.scale}, weights.toml says {entry.backbone} x{entry.scale}"
        raise WeightsError(f"{printable(path)}: {told}")


def describe_file(name: str) -> tuple[Path, ModelConfig, Mapping[str, Any]]:
    """A local file or run: where it lies, and what its header tells. Raises WeightsError."""
    from dreamsr.weights.file import load_weights

    path = local_file(name)
    if path is None:
        raise unknown_weights(name)
    weights = load_weights(path)
    return path, weights.config, weights.facts
