"""What a denoiser is built from: its process, its backbone, what it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dreamsr.config.checks import require, require_unet, require_widths

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
        require(1 <= self.timesteps <= 100_000, "process.timesteps", self.timesteps, "1..100000")
        require(0 < self.kappa < math.inf, "process.kappa", self.kappa, "above 0 and finite")
        require(0 < self.beta_first <= self.beta_last < 1, "process.beta_first", self.beta_first, "in (0, beta_last]")
        roots = 0 < self.sqrt_eta_first < self.sqrt_eta_last <= 1
        require(roots, "process.sqrt_eta_first", self.sqrt_eta_first, "in (0, sqrt_eta_last), both at most 1")
        power = self.geometric_power
        require(0 < power < math.inf, "process.geometric_power", power, "above 0 and finite")
        allowed = ("linear", "cosine") if self.kind == "gaussian" else ("linear", "geometric")
        require(self.schedule in allowed, "process.schedule", self.schedule, f"one of {', '.join(allowed)}")


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of the refiner backbone (predict and refine); see `dreamsr.core.backbones.refiner`."""

    encoder_channels: int = 64
    encoder_blocks: int = 8
    channels: tuple[int, ...] = (64, 128, 192)
    blocks_per_level: int = 2
    residual_gain: float = 8.0

    def __post_init__(self) -> None:
        require(1 <= self.encoder_channels <= 1024, "refiner.encoder_channels", self.encoder_channels, "1..1024")
        require(0 <= self.encoder_blocks <= 128, "refiner.encoder_blocks", self.encoder_blocks, "0..128")
        require(1 <= len(self.channels) <= 4, "refiner.channels", self.channels, "1 to 4 levels")
        require(all(1 <= c <= 4096 for c in self.channels), "refiner.channels", self.channels, "each 1..4096")
        require(1 <= self.blocks_per_level <= 16, "refiner.blocks_per_level", self.blocks_per_level, "1..16")
        gain = self.residual_gain
        require(0 < gain < math.inf, "refiner.residual_gain", gain, "above 0 and finite")


@dataclass(frozen=True)
class SR3Config:
    """Sizes of the SR3 U-Net; see `dreamsr.core.backbones.sr3`. The default is the paper's 16 to 128 net.

    `multipliers` times `channels` is the width of each level; `attention_levels` counts levels from 0, the finest.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (3,)
    dropout: float = 0.2
    groups: int = 32

    def __post_init__(self) -> None:
        require_unet("sr3", self)


@dataclass(frozen=True)
class IDMConfig:
    """Sizes of IDM: an encoder of the small image and a U-Net with an implicit decoder; see `core.backbones.idm`.

    The default is the paper's 16 to 128 net.
    """

    encoder_channels: int = 64
    encoder_blocks: int = 16
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (3,)
    query_width: int = 256
    dropout: float = 0.2
    groups: int = 32

    def __post_init__(self) -> None:
        require(1 <= self.encoder_channels <= 1024, "idm.encoder_channels", self.encoder_channels, "1..1024")
        require(0 <= self.encoder_blocks <= 128, "idm.encoder_blocks", self.encoder_blocks, "0..128")
        require(1 <= self.query_width <= 4096, "idm.query_width", self.query_width, "1..4096")
        require_unet("idm", self)


@dataclass(frozen=True)
class ResShiftConfig:
    """Sizes of ResShift's Swin U-Net on the pixel-unshuffled image; see `core.backbones.resshift`.

    `window` is the side of an attention window in px of the small image.
    """

    channels: int = 160
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks_per_level: int = 2
    swin_depth: int = 2
    swin_width: int = 192
    heads: int = 6
    window: int = 8
    dropout: float = 0.0
    groups: int = 32

    def __post_init__(self) -> None:
        require(1 <= self.swin_depth <= 16, "resshift.swin_depth", self.swin_depth, "1..16")
        require(1 <= self.window <= 64, "resshift.window", self.window, "1..64")
        heads_fit = self.heads >= 1 and 1 <= self.swin_width <= 4096 and self.swin_width % self.heads == 0
        require(heads_fit, "resshift.heads", self.heads, "a divisor of resshift.swin_width")
        require_widths("resshift", self.channels, self.multipliers, self.blocks_per_level, self.groups)
        require(0 <= self.dropout < 1, "resshift.dropout", self.dropout, "in [0, 1)")


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a denoiser: the header of a weights file holds exactly this.

    Of the four backbones' tables only the chosen one's counts. `scale` is how many times the net enlarges; IDM
    also takes every smaller scale above 1.
    """

    backbone: Literal["refiner", "sr3", "idm", "resshift"] = "refiner"
    scale: int = 4
    prediction: Prediction = "x0"
    process: ProcessConfig = field(default_factory=ProcessConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    sr3: SR3Config = field(default_factory=SR3Config)
    idm: IDMConfig = field(default_factory=IDMConfig)
    resshift: ResShiftConfig = field(default_factory=ResShiftConfig)

    def __post_init__(self) -> None:
        require(1 <= self.scale <= 16, "scale", self.scale, "1..16")
        # At T of this schedule x_T holds nothing of x0: read from eps it would be nan, and so would every sample.
        last = 1.0 if self.process.schedule == "linear" else self.process.sqrt_eta_last
        forgets = self.process.kind == "residual" and last == 1.0
        require(not (forgets and self.prediction == "eps"), "prediction", self.prediction, "x0 or v with this process")

    @property
    def continuous(self) -> bool:
        """Whether the net enlarges by any factor in (1, scale], not by `scale` alone."""
        return self.backbone == "idm"
