"""Every setting of a model and of a training run, as frozen dataclasses.

A configuration travels as plain JSON or TOML (in the header of a weights file, in a preset, beside a
checkpoint); `from_mapping` turns it into these classes and refuses what it does not know.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dreamsr.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Prediction = Literal["eps", "x0", "v"]


@dataclass(frozen=True)
class ProcessConfig:
    """How an image becomes noise; see `dreamsr.core.process`.

    `kind` "gaussian" uses `schedule` "linear" (beta from `beta_first` to `beta_last`) or "cosine";
    `kind` "residual" uses `schedule` "linear" (sqrt(eta) = t/T) or "geometric" (ResShift's, shaped by
    `sqrt_eta_first`, `sqrt_eta_last` and `geometric_power`), and `kappa`, the noise's standard deviation
    at t = T in units of a [-1, 1] image.
    """

    kind: Literal["gaussian", "residual"] = "residual"
    timesteps: int = 1000
    schedule: Literal["linear", "cosine", "geometric"] = "linear"
    beta_first: float = 1e-6
    beta_last: float = 1e-2
    kappa: float = 0.125
    sqrt_eta_first: float = 0.02
    sqrt_eta_last: float = 0.99
    geometric_power: float = 0.3

    def __post_init__(self) -> None:
        _require(1 <= self.timesteps <= 100_000, "process.timesteps", self.timesteps, "1..100000")
        _require(0 < self.kappa < math.inf, "process.kappa", self.kappa, "above 0 and finite")
        _require(0 < self.beta_first <= self.beta_last < 1, "process.beta_first", self.beta_first, "in (0, beta_last]")
        roots = 0 < self.sqrt_eta_first < self.sqrt_eta_last <= 1
        _require(roots, "process.sqrt_eta_first", self.sqrt_eta_first, "in (0, sqrt_eta_last), both at most 1")
        power = self.geometric_power
        _require(0 < power < math.inf, "process.geometric_power", power, "above 0 and finite")
        allowed = ("linear", "cosine") if self.kind == "gaussian" else ("linear", "geometric")
        _require(self.schedule in allowed, "process.schedule", self.schedule, f"one of {', '.join(allowed)}")


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of the refiner backbone (predict and refine); see `dreamsr.core.backbones.refiner`."""

    encoder_channels: int = 64
    encoder_blocks: int = 8
    channels: tuple[int, ...] = (64, 128, 192)
    blocks_per_level: int = 2
    residual_gain: float = 8.0

    def __post_init__(self) -> None:
        _require(1 <= self.encoder_channels <= 1024, "refiner.encoder_channels", self.encoder_channels, "1..1024")
        _require(0 <= self.encoder_blocks <= 128, "refiner.encoder_blocks", self.encoder_blocks, "0..128")
        _require(1 <= len(self.channels) <= 4, "refiner.channels", self.channels, "1 to 4 levels")
        _require(all(1 <= c <= 4096 for c in self.channels), "refiner.channels", self.channels, "each 1..4096")
        _require(1 <= self.blocks_per_level <= 16, "refiner.blocks_per_level", self.blocks_per_level, "1..16")
        gain = self.residual_gain
        _require(0 < gain < math.inf, "refiner.residual_gain", gain, "above 0 and finite")


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a denoiser: the header of a weights file holds exactly this."""

    backbone: Literal["refiner"] = "refiner"
    scale: int = 4
    prediction: Prediction = "x0"
    process: ProcessConfig = field(default_factory=ProcessConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)

    def __post_init__(self) -> None:
        _require(1 <= self.scale <= 16, "scale", self.scale, "1..16")
        # At T of this schedule x_T holds nothing of x0: read from eps it would be nan, and so would every sample.
        last = 1.0 if self.process.schedule == "linear" else self.process.sqrt_eta_last
        forgets = self.process.kind == "residual" and last == 1.0
        _require(not (forgets and self.prediction == "eps"), "prediction", self.prediction, "x0 or v with this process")


@dataclass(frozen=True)
class DreamConfig:
    """DREAM's settings: `power` is p of lam = level ** p; infinity means plain training.

    `start` is the optimizer step from which the model's own estimate is good enough to be used.
    """

    power: float = 1.0
    start: int = 0

    def __post_init__(self) -> None:
        _require(self.power >= 0, "dream.power", self.power, "0 or more, or inf for plain training")
        _require(self.start >= 0, "dream.start", self.start, "0 or more")

    @property
    def enabled(self) -> bool:
        return math.isfinite(self.power)


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Sizes in pixels of the small image unless the name says otherwise."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dream: DreamConfig = field(default_factory=lambda: DreamConfig(power=math.inf))
    max_steps: int = 100_000
    base_steps: int = 0
    batch_size: int = 16
    crop_low_px: int = 32
    crop_candidates: int = 3
    shrink_factors: tuple[int, ...] = (1, 2)
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    clip_norm: float = 0.5
    ema_halflife_steps: float = 500.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.max_steps >= 0, "max_steps", self.max_steps, "0 or more")
        _require(self.base_steps >= 0, "base_steps", self.base_steps, "0 or more")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.crop_low_px >= 8, "crop_low_px", self.crop_low_px, "8 or more")
        _require(self.crop_candidates >= 1, "crop_candidates", self.crop_candidates, "1 or more")
        shrinks_fit = bool(self.shrink_factors) and all(1 <= s <= 8 for s in self.shrink_factors)
        _require(shrinks_fit, "shrink_factors", self.shrink_factors, "integers 1..8")
        _require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0 and finite")
        _require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0, or inf for no clipping")
        _require(self.ema_halflife_steps > 0, "ema_halflife_steps", self.ema_halflife_steps, "above 0")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.save_every >= 1, "save_every", self.save_every, "1 or more")


Config = TypeVar("Config", ModelConfig, TrainConfig, ProcessConfig, DreamConfig, RefinerConfig)


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
    """The inverse of `from_mapping`: nested dicts that JSON and TOML can hold (infinity as the text "inf")."""
    plain = dataclasses.asdict(config)
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
        for inner in (ProcessConfig, RefinerConfig, ModelConfig, DreamConfig, TrainConfig):
            if not hasattr(inner, "__pydantic_config__"):
                with_config(ConfigDict(extra="forbid", strict=True))(inner)
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _require(holds: bool, name: str, given: object, possible: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {given!r}, but it must be {possible}")
