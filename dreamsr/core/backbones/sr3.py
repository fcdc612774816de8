"""SR3: a diffusion U-Net that sees the bicubic enlargement beside the noise (Saharia et al. 2021, arXiv 2104.07636).

The finest level works on the large grid itself, so a step costs scale^2 times what it would on the small one.
Predicts eps with the Gaussian process (x0 or v if so trained).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.core import resize
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.backbones.blocks import pad_to_multiple, require_own_scale
from dreamsr.core.backbones.unet import UNet, require_unet
from dreamsr.core.denoiser import Condition


@dataclass(frozen=True)
class SR3Config:
    """Sizes of the U-Net. The default is the paper's 16 to 128 net.

    channels: width of the finest level, and of the code of the noise level.
    multipliers: times `channels` the width of each level, the finest first.
    blocks_per_level: residual blocks in each level on the way down; on the way up there is one more.
    attention_levels: where attention follows each block; levels are counted from 0, the finest.
    dropout: share of the values in each residual block that training drops.
    groups: of each group normalisation.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (3,)
    dropout: float = 0.2
    groups: int = 32

    def __post_init__(self) -> None:
        require_unet("sr3", self)


class SR3(nn.Module):
    """The backbone: y is bicubic, `forward` is one pass of the U-Net on y and x_t; any size."""

    def __init__(self, config: SR3Config, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.multiple = 2 ** (len(config.multipliers) - 1)
        self.unet = UNet(config, inputs=6, outputs=3)
        self.ups = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in self.unet.widths[1:])

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> y [B,3,H,W], no features. Raises ValueError for another scale than its own."""
        require_own_scale(self.scale, scale)
        return Condition(y=resize.enlarge(low, self.scale))

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        """x_t [B,3,H,W], level [B] in [0,1] -> eps [B,3,H,W] (x0 or v if so trained)."""
        height, width = x_t.shape[-2:]
        joined = pad_to_multiple(torch.cat([condition.y, x_t], dim=1), self.multiple)  # [B,6,H',W']
        joined = joined.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.unet(joined, level, self.enlarge)
        return out[..., :height, :width].to(x_t.dtype)  # [B,3,H,W]

    def enlarge(self, i: int, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Repeat pixels, then convolve: features [B,C,h,w] of level i+1 -> [B,C,*size]."""
        out: Tensor = self.ups[i](F.interpolate(features, size=size, mode="nearest"))
        return out


SR3_ARCHITECTURE = Architecture("sr3", SR3Config, lambda sizes, use: SR3(sizes, scale=use.scale))
