"""Weights that a training run begins with, and what its own weights say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamsr.core.model import ModelConfig, build_net
from dreamsr.disk import file_sha256
from dreamsr.errors import UsageError
from dreamsr.weights.file import load_weights
from dreamsr.weights.resolve import describe_weights, resolve_weights

ORIGIN = "finetuned_from"
"""The fact about the weights begun with, in config.json and in the headers of a run's weights."""


@dataclass(frozen=True)
class Start:
    """The net to begin with: its configuration, its parameters, the fact `ORIGIN` about it, and its file.

    partial: the run's net is another one, and `state` holds only what fits it.
    """

    model: ModelConfig
    state: Mapping[str, Tensor]
    origin: Mapping[str, Any]
    file: Path
    partial: bool = False

    def fitted(self, model: ModelConfig, *, on_notice: Callable[[str], None]) -> Start:
        """What of this fits a net of `model` by name and shape, which is told. Raises UsageError where nothing does."""
        with torch.device("meta"):
            wanted = build_net(model).state_dict()
        kept = {name: value for name, value in self.state.items() if _fits(value, wanted.get(name))}
        if not kept:
            raise UsageError(
                f"`partial`: no tensor of the {self.model.backbone} weights fits the {model.backbone} to be trained; "
                "choose other weights, or leave out `weights` and `partial`"
            )
        told = f"{len(kept)} of {len(wanted)}"
        on_notice(f"{told} tensors of the net fit and are taken over from `weights`; the others begin anew")
        origin = {ORIGIN: {**self.origin[ORIGIN], "tensors": told}}
        return Start(model, kept, origin, self.file, partial=True)


def _fits(value: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and wanted.shape == value.shape


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
