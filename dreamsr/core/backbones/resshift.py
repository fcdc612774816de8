"""ResShift's Swin U-Net on the small grid (Yue et al., NeurIPS 2023, arXiv 2307.12348).

The paper shrinks images with a borrowed autoencoder, which costs more than the net it serves. Here they are
pixel-unshuffled: as small, nothing lost, nothing borrowed. The U-Net is the paper's, Swin blocks instead of global
attention; a Swin block lies after the first residual block of every level, down and up, and in the middle, which
gives the paper's 118.6 M parameters. Ours is the path around each Swin block, so that its `swin_width` channels
need not carry all that the wider levels know.

Normalisation looks at the whole input: a tile does not compute exactly what the whole would.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import require
from dreamsr.core import resize
from dreamsr.core.backbones.architecture import Architecture, Use
from dreamsr.core.backbones.blocks import LevelEmbedding, pad_to_multiple, require_own_scale
from dreamsr.core.backbones.swin import SwinBlock
from dreamsr.core.backbones.unet import GroupNorm, require_widths, zeroed
from dreamsr.core.denoiser import Condition


@dataclass(frozen=True)
class ResShiftConfig:
    """Sizes of the Swin U-Net on the pixel-unshuffled image.

    channels: width of the finest level.
    swin_depth: Swin layers in each Swin block, alternately plain and shifted.
    swin_width: width of each Swin block.
    heads: of its attention, each swin_width / heads wide.
    window: side of an attention window, in px of the level it works on.
    multipliers, blocks_per_level, dropout, groups: as in `SR3Config`.
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


class ScaledBlock(nn.Module):
    """Twice norm-swish-conv, the second norm scaled and shifted by the noise level (Dhariwal and Nichol 2021, AdaGN).

    x [B,I,h,w], embedding [B,E] -> [B,O,h,w]. Starts as the identity, or as a 1x1 convolution where I != O.
    """

    def __init__(self, inputs: int, outputs: int, *, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = GroupNorm(groups, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.second_norm = GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)  # [B,O,1,1] each
        middle = self.second_norm(self.first(F.silu(self.first_norm(x)))) * (1 + gain) + shift  # [B,O,h,w]
        change: Tensor = self.second(self.dropout(F.silu(middle)))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + change  # [B,O,h,w]


class ResShiftStage(nn.Module):
    """A residual block and, where asked, a Swin block after it. x [B,I,h,w], embedding [B,E] -> [B,O,h,w]."""

    def __init__(self, config: ResShiftConfig, inputs: int, outputs: int, *, embedding: int, swin: bool) -> None:
        super().__init__()
        self.block = ScaledBlock(inputs, outputs, embedding=embedding, groups=config.groups, dropout=config.dropout)
        self.swin = (
            SwinBlock(
                outputs, width=config.swin_width, depth=config.swin_depth, heads=config.heads, window=config.window
            )
            if swin
            else nn.Identity()
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.swin(self.block(x, embedding))
        return out  # [B,O,h,w]


class SwinUNet(nn.Module):
    """x [B,I,h,w], level embedding [B,E] -> [B,O,h,w]; any h, w. Starts at zero.

    Every encoder output, also of the entering and the strided convolutions, is joined to a decoder block.
    """

    def __init__(self, config: ResShiftConfig, *, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        blocks = config.blocks_per_level

        def stages(into: list[int], width: int) -> nn.ModuleList:
            made = (ResShiftStage(config, c, width, embedding=embedding, swin=j == 0) for j, c in enumerate(into))
            return nn.ModuleList(made)

        self.multiple = 2 ** (len(widths) - 1)
        self.enter = nn.Conv2d(inputs, config.channels, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in widths[:-1])
        self.ups = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in widths[1:])
        self.encoder = nn.ModuleList()
        skips, last = [config.channels], config.channels
        for i, width in enumerate(widths):
            self.encoder.append(stages([last] + [width] * (blocks - 1), width))
            skips += [width] * (blocks + (i < len(self.downs)))
            last = width
        self.middle = stages([last, last], last)
        decoder = []
        for width in reversed(widths):
            decoder.append(stages([c + skips.pop() for c in [last] + [width] * blocks], width))
            last = width
        self.decoder = nn.ModuleList(reversed(decoder))
        self.norm = GroupNorm(config.groups, last)
        self.leave = zeroed(nn.Conv2d(last, outputs, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.enter(pad_to_multiple(x, self.multiple))  # [B,C0,h',w']
        skips = [x]
        for i, stages in enumerate(self.encoder):
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(x, embedding)  # [B,Ci,h'/2^i,w'/2^i]
                skips.append(x)
            if i < len(self.downs):
                x = self.downs[i](x)  # [B,Ci,h'/2^(i+1),w'/2^(i+1)]
                skips.append(x)
        for stage in self.middle:
            x = stage(x, embedding)
        for i in reversed(range(len(self.decoder))):
            for stage in self.decoder[i]:  # type: ignore[attr-defined]
                x = stage(torch.cat([x, skips.pop()], dim=1), embedding)  # [B,Ci,h'/2^i,w'/2^i]
            if i > 0:
                x = self.ups[i - 1](F.interpolate(x, scale_factor=2, mode="nearest"))  # [B,Ci,h'/2^(i-1),w'/2^(i-1)]
        out: Tensor = self.leave(F.silu(self.norm(x)))[..., :height, :width]
        return out  # [B,O,h,w]


class ResShift(nn.Module):
    """The backbone: y is bicubic, the features are the small image itself, one pass of the Swin U-Net per step.

    `kappa` is the residual process's, 0 for the Gaussian family; with it the net's input has unit variance
    throughout. With `residual` (for nets that predict x0) the net's output is added to y, so a fresh net returns y;
    without it the output is the prediction (eps or v, as in DREAM's Table 3).
    """

    def __init__(self, config: ResShiftConfig, *, scale: int, kappa: float, residual: bool) -> None:
        super().__init__()
        self.scale = scale
        self.kappa = kappa
        self.residual = residual
        pixels, embedding = 3 * scale**2, 4 * config.channels
        self.embed = LevelEmbedding(embedding)
        self.unet = SwinUNet(config, inputs=pixels + 3, outputs=pixels, embedding=embedding)

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> y [B,3,H,W], features: low itself. Raises ValueError for another scale."""
        require_own_scale(self.scale, scale)
        return Condition(y=resize.enlarge(low, self.scale), features=low)

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        """x_t [B,3,H,W], level [B] in [0,1] -> x0, eps or v [B,3,H,W]. Raises ValueError without features."""
        if condition.features is None:
            raise ValueError("ResShift needs the features that its encode() returns")
        std = (1 + (self.kappa * level) ** 2).sqrt()  # [B], of x_t where x0 has unit variance; eta = level^2
        noisy = F.pixel_unshuffle(x_t / std[:, None, None, None], self.scale)  # [B,3*scale^2,h,w]
        joined = torch.cat([condition.features.to(noisy.dtype), noisy], dim=1)  # [B,3+3*scale^2,h,w]
        out = self.unet(joined.contiguous(memory_format=torch.channels_last), self.embed(level))
        change = F.pixel_shuffle(out, self.scale).to(x_t.dtype)  # [B,3,H,W]
        return condition.y + change if self.residual else change


def build_resshift(sizes: ResShiftConfig, use: Use) -> ResShift:
    """The net as the process and the prediction want it."""
    kappa = use.process.kappa if use.process.kind == "residual" else 0.0
    return ResShift(sizes, scale=use.scale, kappa=kappa, residual=use.prediction == "x0")


RESSHIFT_ARCHITECTURE = Architecture("resshift", ResShiftConfig, build_resshift)
