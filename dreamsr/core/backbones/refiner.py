"""Predict and refine: the default backbone, made for few steps on a CPU.

An encoder runs once on the small image. It predicts the base y (bicubic plus a pixel-shuffled residual) and
hands its features to a light U-Net, which every step refines x0 - y on the *small* grid (pixel-unshuffled).
No attention and no normalisation over space: any size works, and a tile with some context computes what the
whole would.

One step from T is a regression; more steps add texture. The net's output is x0 = y + out / gain, so that it
works on values of order one.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import RefinerConfig
from dreamsr.core import resize
from dreamsr.core.backbones.blocks import (
    LevelEmbedding,
    ModulatedBlock,
    ResidualBlock,
    pad_to_multiple,
    require_own_scale,
)
from dreamsr.core.denoiser import Condition


class Encoder(nn.Module):
    """low [B,3,h,w] -> features [B,C,h,w], with which the base is predicted and every step is conditioned."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, low: Tensor) -> Tensor:
        shallow: Tensor = self.head(low)
        deep: Tensor = self.tail(self.body(shallow))
        return shallow + deep  # [B,C,h,w]


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

    continuous = False
    predicts_base = True

    def __init__(self, config: RefinerConfig, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.gain = config.residual_gain
        pixels, embedding = 3 * scale**2, 4 * config.channels[0]
        self.encoder = Encoder(config.encoder_channels, config.encoder_blocks)
        self.base = nn.Conv2d(config.encoder_channels, pixels, 3, padding=1)
        nn.init.zeros_(self.base.weight)
        nn.init.zeros_(self.base.bias)  # type: ignore[arg-type]
        self.embed = LevelEmbedding(embedding)
        inputs = pixels + config.encoder_channels
        self.unet = StepUNet(inputs, pixels, config.channels, config.blocks_per_level, embedding)

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> y [B,3,H,W], features [B,C,h,w]."""
        require_own_scale(self.scale, scale)
        features = self.encoder(low)
        residual = F.pixel_shuffle(self.base(features), self.scale).to(low.dtype) / self.gain  # [B,3,H,W]
        return Condition(y=resize.enlarge(low, self.scale) + residual, features=features)

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        """x_t [B,3,H,W], level [B] in [0,1] -> x0 [B,3,H,W]."""
        if condition.features is None:
            raise ValueError("the refiner needs the features that its encode() returns")
        noisy = F.pixel_unshuffle((x_t - condition.y) * self.gain, self.scale)  # [B,3*scale^2,h,w]
        features = condition.features
        joined = cat_like(features, noisy)  # [B,C+3*scale^2,h,w]
        out = self.unet(joined, self.embed(level))  # [B,3*scale^2,h,w]
        return condition.y + F.pixel_shuffle(out, self.scale).to(x_t.dtype) / self.gain  # [B,3,H,W]


def cat_like(features: Tensor, noisy: Tensor) -> Tensor:
    """Join along channels in the dtype of the features, [B,C+K,h,w], channels last for fast convolutions."""
    joined = torch.cat([features, noisy.to(features.dtype)], dim=1)
    return joined.contiguous(memory_format=torch.channels_last)
