"""Weights that a training run begins with, and what its own weights say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dreamsr.core.model import ModelConfig
from dreamsr.weights.file import load_weights
from dreamsr.weights.resolve import describe_weights, file_sha256, resolve_weights

ORIGIN = "finetuned_from"
"""The fact about the weights begun with, in config.json and in the headers of a run's weights."""


@dataclass(frozen=True)
class Start:
    """The net to begin with: its configuration, its parameters, the fact `ORIGIN` about it, and its file."""

    model: ModelConfig
    state: Mapping[str, Tensor]
    origin: Mapping[str, Any]
    file: Path


def load_start(name: str, *, on_notice: Callable[[str], None] | None = None) -> Start:
    """Weights by name, file, run or Hub reference. Raises WeightsError and DownloadError."""
    path = resolve_weights(name, on_notice=on_notice)
    weights = load_weights(path)
    return Start(weights.config, weights.net.state_dict(), origin(name, path), path)


def origin(name: str, file: Path) -> dict[str, Any]:
    """What a run says of the weights begun with; of a path only its last part, for the rest is private."""
    entry = describe_weights(name)
    path = Path(name).expanduser()
    told: dict[str, Any] = {"name": path.resolve().name if path.exists() and entry is None else name}
    told["sha256"] = file_sha256(file)
    if entry is not None:
        kept = ("licence", "training_data", "training_data_licence")
        told |= {field: getattr(entry, field) for field in kept}
    return {ORIGIN: told}
