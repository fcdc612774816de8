"""SR3: a diffusion U-Net that sees the bicubic enlargement beside the noise (Saharia et al. 2021, arXiv 2104.07636).

The finest level works on the large grid itself, so a step costs scale^2 times what it would on the small one.
Predicts eps with the Gaussian process (x0 or v if so trained).
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import SR3Config
from dreamsr.core import resize
from dreamsr.core.backbones.blocks import pad_to_multiple, require_own_scale
from dreamsr.core.backbones.unet import UNet
from dreamsr.core.denoiser import Condition


class SR3(nn.Module):
    """The backbone: y is bicubic, `forward` is one pass of the U-Net on y and x_t; any size."""

    continuous = False
    predicts_base = False

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
