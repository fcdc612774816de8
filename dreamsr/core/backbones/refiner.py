"""Predict and refine: the default backbone, made for few steps on a CPU.

An encoder runs once on the small image. It predicts the base y (bicubic plus a pixel-shuffled residual) and
hands its features to a light U-Net, which every step refines x0 - y on the *small* grid (pixel-unshuffled).
No attention and no normalisation over space: any size works, and a tile with some context computes what the
whole would. With `unshuffle` u the small grid is coarser still, h/u x w/u: a net that enlarges 2 times with u = 2 then
costs a quarter, and sees as many large pixels in a cell as one that enlarges 4 times.

One step from T is a regression; more steps add texture. The net's output is x0 = y + out / gain, so that it
works on values of order one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import require
from dreamsr.core import resize
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.backbones.blocks import (
    LevelEmbedding,
    ModulatedBlock,
    ResidualBlock,
    pad_to_multiple,
    require_own_scale,
)
from dreamsr.core.denoiser import Condition
from dreamsr.core.tiles import ALIGN_PX


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of the refiner.

    encoder_channels, encoder_blocks: width and depth of the encoder.
    channels: width of each level of the step's U-Net, the finest first.
    blocks_per_level: residual blocks in each level, down and up.
    residual_gain: what the U-Net sees of the small differences to y is multiplied by this, its output divided.
    unshuffle: everything works on the small picture pixel-unshuffled by this factor; times the U-Net's halvings it must
        divide the tiles' alignment, so that a tile meets the same grid as the whole.
    """

    encoder_channels: int = 64
    encoder_blocks: int = 8
    channels: tuple[int, ...] = (64, 128, 192)
    blocks_per_level: int = 2
    residual_gain: float = 8.0
    unshuffle: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.encoder_channels <= 1024, "refiner.encoder_channels", self.encoder_channels, "1..1024")
        require(0 <= self.encoder_blocks <= 128, "refiner.encoder_blocks", self.encoder_blocks, "0..128")
        require(1 <= len(self.channels) <= 4, "refiner.channels", self.channels, "1 to 4 levels")
        require(all(1 <= c <= 4096 for c in self.channels), "refiner.channels", self.channels, "each 1..4096")
        require(1 <= self.blocks_per_level <= 16, "refiner.blocks_per_level", self.blocks_per_level, "1..16")
        gain = self.residual_gain
        require(0 < gain < math.inf, "refiner.residual_gain", gain, "above 0 and finite")
        possible = [n for n in range(1, ALIGN_PX + 1) if ALIGN_PX % (n * self.halvings) == 0]
        words = f"one of {possible} with {len(self.channels)} levels of refiner.channels"
        require(self.unshuffle in possible, "refiner.unshuffle", self.unshuffle, words)

    @property
    def halvings(self) -> int:
        """How many cells of the small grid make one of the U-Net's coarsest, along one side."""
        return 1 << (len(self.channels) - 1)


class Encoder(nn.Module):
    """low [B,3,h,w] -> features [B,C,h/u,w/u], rounded up, from which the base comes and which every step is told."""

    def __init__(self, channels: int, blocks: int, unshuffle: int = 1) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.head = nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, low: Tensor) -> Tensor:
        shallow: Tensor = self.head(to_grid(low, self.unshuffle))
        deep: Tensor = self.tail(self.body(shallow))
        return shallow + deep  # [B,C,h/u,w/u]


class StepUNet(nn.Module):
    """One step's work on the small grid: x [B,I,h,w], level embedding [B,E] -> [B,O,h,w]; any h, w."""

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], blocks: int, embedding: int) -> None:
        super().__init__()
        levels = range(len(channels))
        pairs = list(pairwise(channels))

        def stage(c: int) -> nn.ModuleList:
            return nn.ModuleList(ModulatedBlock(c, embedding) for _ in range(blocks))

        self.multiple = 2 ** (len(channels) - 1)
        self.enter = nn.Conv2d(inputs, channels[0], 3, padding=1)
        self.down_stages = nn.ModuleList(stage(channels[i]) for i in levels)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.up_stages = nn.ModuleList(stage(channels[i]) for i in levels[:-1])
        self.leave = nn.Conv2d(channels[0], outputs, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.enter(pad_to_multiple(x, self.multiple))  # [B,C0,h',w']
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down_stages):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, embedding)
            if i < len(self.downs):
                skips.append(x)
                x = self.downs[i](x)  # [B,C(i+1),h'/2^(i+1),w'/2^(i+1)]
        for i in reversed(range(len(self.ups))):
            x = skips[i] + F.pixel_shuffle(self.ups[i](x), 2)  # [B,Ci,h'/2^i,w'/2^i]
            for block in self.up_stages[i]:  # type: ignore[attr-defined]
                x = block(x, embedding)
        out: Tensor = self.leave(x)[..., :height, :width]
        return out  # [B,O,h,w]


class Refiner(nn.Module):
    """The backbone: `encode` once per image, `forward` once per step. Predicts x0 (in eps or v terms if so trained)."""

    def __init__(self, config: RefinerConfig, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.cell = scale * config.unshuffle  # large pixels along a cell of the small grid
        self.gain = config.residual_gain
        pixels, embedding = 3 * self.cell**2, 4 * config.channels[0]
        self.encoder = Encoder(config.encoder_channels, config.encoder_blocks, config.unshuffle)
        self.base = nn.Conv2d(config.encoder_channels, pixels, 3, padding=1)
        nn.init.zeros_(self.base.weight)
        nn.init.zeros_(self.base.bias)  # type: ignore[arg-type]
        self.embed = LevelEmbedding(embedding)
        inputs = pixels + config.encoder_channels
        self.unet = StepUNet(inputs, pixels, config.channels, config.blocks_per_level, embedding)

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> y [B,3,H,W], features [B,C,h/u,w/u]."""
        require_own_scale(self.scale, scale)
        features = self.encoder(low)
        bicubic = resize.enlarge(low, self.scale)
        residual = from_grid(self.base(features), self.cell, like=bicubic) / self.gain  # [B,3,H,W]
        return Condition(y=bicubic + residual, features=features)

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        """x_t [B,3,H,W], level [B] in [0,1] -> x0 [B,3,H,W]."""
        if condition.features is None:
            raise ValueError("the refiner needs the features that its encode() returns")
        noisy = to_grid((x_t - condition.y) * self.gain, self.cell)  # [B,3*cell^2,h/u,w/u]
        features = condition.features
        joined = cat_like(features, noisy)  # [B,C+3*cell^2,h/u,w/u]
        out = self.unet(joined, self.embed(level))  # [B,3*cell^2,h/u,w/u]
        return condition.y + from_grid(out, self.cell, like=x_t) / self.gain  # [B,3,H,W]


def to_grid(images: Tensor, cell: int) -> Tensor:
    """[B,K,H,W] -> [B,K*cell^2,H/cell,W/cell], rounded up: the right and bottom edges are repeated to whole cells."""
    return F.pixel_unshuffle(pad_to_multiple(images, cell), cell) if cell > 1 else images


def from_grid(grid: Tensor, cell: int, *, like: Tensor) -> Tensor:
    """[B,K*cell^2,h',w'] -> [B,K,H,W] of the size and dtype of `like`: the inverse of `to_grid`."""
    return F.pixel_shuffle(grid, cell)[..., : like.shape[-2], : like.shape[-1]].to(like.dtype)


def cat_like(features: Tensor, noisy: Tensor) -> Tensor:
    """Join along channels in the dtype of the features, [B,C+K,h,w], channels last for fast convolutions."""
    joined = torch.cat([features, noisy.to(features.dtype)], dim=1)
    return joined.contiguous(memory_format=torch.channels_last)


REFINER_ARCHITECTURE = Architecture(
    "refiner", RefinerConfig, lambda sizes, use: Refiner(sizes, scale=use.scale), predicts_base=True
)
