"""The diffusion U-Net that SR3 and IDM share (Ho et al. 2020, DDPM; Saharia et al. 2021, SR3).

Residual blocks with group normalisation are told the noise level by a bias. How the decoder enlarges its
features from one level to the next is left to the net: SR3 repeats pixels, IDM queries coordinates.

Normalisation and attention look at the whole input: a tile does not compute exactly what the whole would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import require

Enlarge = Callable[[int, Tensor, tuple[int, int]], Tensor]
"""(i, features [B,C,h,w] of level i+1, (height, width) of level i) -> features [B,C,height,width] for level i."""

WAVES_SPAN = 1e4
FASTEST_WAVE = 5000.0


class UNetSizes(Protocol):
    """What the configurations of SR3 and IDM have in common; their fields are explained there."""

    @property
    def channels(self) -> int: ...
    @property
    def multipliers(self) -> tuple[int, ...]: ...
    @property
    def blocks_per_level(self) -> int: ...
    @property
    def attention_levels(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def groups(self) -> int: ...


def require_widths(table: str, channels: int, multipliers: tuple[int, ...], blocks: int, groups: int) -> None:
    """Widths, depth and group normalisation of a U-Net fit together."""
    require(1 <= channels <= 4096, f"{table}.channels", channels, "1..4096")
    require(1 <= len(multipliers) <= 8, f"{table}.multipliers", multipliers, "1 to 8 levels")
    require(all(1 <= m <= 64 for m in multipliers), f"{table}.multipliers", multipliers, "each 1..64")
    require(1 <= blocks <= 16, f"{table}.blocks_per_level", blocks, "1..16")
    require(groups >= 1 and channels % groups == 0, f"{table}.groups", groups, f"a divisor of {table}.channels")


def require_unet(table: str, config: UNetSizes) -> None:
    """The same, with attention and dropout."""
    require_widths(table, config.channels, config.multipliers, config.blocks_per_level, config.groups)
    levels = config.attention_levels
    require(
        all(0 <= level < len(config.multipliers) for level in levels),
        f"{table}.attention_levels",
        levels,
        "levels counted from 0, below the number of multipliers",
    )
    require(0 <= config.dropout < 1, f"{table}.dropout", config.dropout, "in [0, 1)")


class GroupNorm(nn.GroupNorm):
    """Group normalisation, also of a single value per group, which `nn.GroupNorm` refuses (a tiny picture)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)  # [B,C,h,w]


class NoiseLevelCode(nn.Module):
    """Noise level [B] in [0,1] -> code [B,C]: waves of gamma = sqrt(alpha_bar), then two linear layers.

    The level is sqrt(1 - alpha_bar). Nets conditioned on gamma are due to Chen et al. 2020 (WaveGrad) and SR3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Linear(channels, 4 * channels)
        self.second = nn.Linear(4 * channels, channels)

    def forward(self, level: Tensor) -> Tensor:
        gamma = ((1 - level) * (1 + level)).sqrt()  # [B]; 1 - level**2 would cancel close to 1
        # A seventh of SR3's 2000 steps has gamma within 0.1 of 1, the first three within 1e-5. Waves of at most one
        # radian over 0..1 would show these steps as the same: WaveGrad speeds them up 5000 times.
        exponent = torch.linspace(0, 1, (self.channels + 1) // 2, device=level.device, dtype=level.dtype)
        angle = gamma[:, None] * (FASTEST_WAVE * WAVES_SPAN**-exponent)  # [B,C/2], 5000 to 0.5 radians at gamma = 1
        waves = torch.cat([angle.sin(), angle.cos()], dim=1)[:, : self.channels]  # [B,C]
        code: Tensor = self.second(F.silu(self.first(waves)))
        return code  # [B,C]


class BiasedBlock(nn.Module):
    """Twice norm-swish-conv around a bias per channel from the noise level, dropout before the second conv.

    x [B,I,h,w], code [B,E] -> [B,O,h,w]. Starts as the identity, or as a 1x1 convolution where I != O.
    """

    def __init__(self, inputs: int, outputs: int, *, code: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = GroupNorm(groups, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bias = nn.Linear(code, outputs)
        self.second_norm = GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        middle = self.first(F.silu(self.first_norm(x))) + self.bias(code)[:, :, None, None]  # [B,O,h,w]
        change: Tensor = self.second(self.dropout(F.silu(self.second_norm(middle))))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + change  # [B,O,h,w]


class SelfAttention(nn.Module):
    """x + attention of every pixel to every pixel, one head (Vaswani et al. 2017). [B,C,h,w] -> [B,C,h,w].

    Starts as the identity. Work grows with (h*w)^2.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.query_key_value(self.norm(x)).flatten(2).mT[:, None]  # [B,1,h*w,3C]
        query, key, value = pixels.chunk(3, dim=-1)  # [B,1,h*w,C] each
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0].mT  # [B,C,h*w]
        change: Tensor = self.out(mixed.reshape(x.shape))
        return x + change  # [B,C,h,w]


class Stage(nn.Module):
    """A biased block and, where asked, attention after it. x [B,I,h,w], code [B,E] -> [B,O,h,w]."""

    def __init__(self, inputs: int, outputs: int, *, code: int, groups: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.block = BiasedBlock(inputs, outputs, code=code, groups=groups, dropout=dropout)
        self.attention = SelfAttention(outputs, groups=groups) if attention else nn.Identity()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        attended: Tensor = self.attention(self.block(x, code))
        return attended  # [B,O,h,w]


class UNet(nn.Module):
    """x [B,I,H,W], level [B] in [0,1], a way to enlarge -> [B,O,H,W].

    Every encoder output, also of the entering and the strided convolutions, is joined to a decoder block.
    An odd size is halved upwards; `enlarge` is told the size to come back to. Starts at zero: for a net that
    predicts noise that is the mean of all answers. `widths` are the channels of each level, the finest first.
    """

    def __init__(self, config: UNetSizes, *, inputs: int, outputs: int) -> None:
        super().__init__()
        code, blocks = config.channels, config.blocks_per_level
        self.widths = tuple(config.channels * multiplier for multiplier in config.multipliers)

        def stage(inputs: int, outputs: int, *, attention: bool) -> Stage:
            return Stage(inputs, outputs, code=code, groups=config.groups, dropout=config.dropout, attention=attention)

        self.code = NoiseLevelCode(code)
        self.enter = nn.Conv2d(inputs, config.channels, 3, padding=1)
        self.encoder = nn.ModuleList()
        self.downs = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in self.widths[:-1])
        skips, last = [config.channels], config.channels
        for i, width in enumerate(self.widths):
            into = [last] + [width] * (blocks - 1)
            self.encoder.append(nn.ModuleList(stage(c, width, attention=i in config.attention_levels) for c in into))
            skips += [width] * (blocks + (i < len(self.downs)))
            last = width
        self.middle = nn.ModuleList([stage(last, last, attention=True), stage(last, last, attention=False)])
        decoder = []
        for i, width in reversed(list(enumerate(self.widths))):
            into = [c + skips.pop() for c in [last] + [width] * blocks]
            decoder.append(nn.ModuleList(stage(c, width, attention=i in config.attention_levels) for c in into))
            last = width
        self.decoder = nn.ModuleList(reversed(decoder))
        self.norm = GroupNorm(config.groups, last)
        self.leave = zeroed(nn.Conv2d(last, outputs, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, enlarge: Enlarge) -> Tensor:
        code = self.code(level)
        x = self.enter(x)  # [B,C0,H,W]
        skips = [x]
        for i, stages in enumerate(self.encoder):
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(x, code)  # [B,Ci,Hi,Wi]
                skips.append(x)
            if i < len(self.downs):
                x = self.downs[i](x)  # [B,Ci,ceil(Hi/2),ceil(Wi/2)]
                skips.append(x)
        for stage in self.middle:
            x = stage(x, code)
        for i in reversed(range(len(self.decoder))):
            for stage in self.decoder[i]:  # type: ignore[attr-defined]
                x = stage(torch.cat([x, skips.pop()], dim=1), code)  # [B,Ci,Hi,Wi]
            if i > 0:
                height, width = skips[-1].shape[-2:]
                x = enlarge(i - 1, x, (height, width))  # [B,Ci,H(i-1),W(i-1)]
        out: Tensor = self.leave(F.silu(self.norm(x)))
        return out  # [B,O,H,W]


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with all parameters zero: what it ends starts without effect and wakes in training."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
