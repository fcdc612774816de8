"""Building blocks shared by backbones. None looks beyond its neighbourhood, so tiles agree with the whole."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), without normalisation (Lim et al. 2017, EDSR). [B,C,h,w] -> [B,C,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(x)))
        return x + change  # [B,C,h,w]


class ModulatedBlock(nn.Module):
    """A residual block whose middle is scaled and shifted by the noise level (FiLM, Perez et al. 2018).

    x [B,C,h,w], embedding [B,E] -> [B,C,h,w]. Starts as the identity.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        for parameter in (*self.second.parameters(), *self.modulation.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)  # [B,C,1,1] each
        change: Tensor = self.second(F.silu(self.first(x) * (1 + gain) + shift))
        return x + change  # [B,C,h,w]


class LevelEmbedding(nn.Module):
    """Noise level [B] in [0,1] -> [B,E]: sines of rising frequency, then two linear layers."""

    def __init__(self, size: int, *, frequencies: int = 32) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.first = nn.Linear(2 * frequencies, size)
        self.second = nn.Linear(size, size)

    def forward(self, level: Tensor) -> Tensor:
        exponent = torch.linspace(0, 1, self.frequencies, device=level.device, dtype=level.dtype)
        angle = level[:, None] * (math.pi * 64**exponent)  # [B,F], half a turn to 32 turns
        waves = torch.cat([angle.sin(), angle.cos()], dim=1)  # [B,2F]
        embedding: Tensor = F.silu(self.second(F.silu(self.first(waves))))
        return embedding  # [B,E]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge until height and width are multiples. [B,C,h,w] -> [B,C,h',w']."""
    bottom, right = (-x.shape[-2]) % multiple, (-x.shape[-1]) % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def require_own_scale(own: int, asked: Fraction | None) -> None:
    """Raise ValueError where a net of one scale is asked for another."""
    if asked is not None and asked != own:
        raise ValueError(f"this net enlarges {own} times and cannot enlarge {asked} times")
