"""IDM: a diffusion U-Net whose decoder is asked for features at coordinates (Gao et al., CVPR 2023, arXiv 2303.16491).

One net enlarges by every factor in (1, scale]. It runs on the grid of the wanted size and is told the factor:
wherever its decoder goes to a finer grid, an implicit block first mixes what the U-Net has generated with what
the small image shows, in shares that depend on the factor, and then finds the feature at every finer pixel from
its place between the coarser ones (after LIIF, Chen et al. 2021). Places are ratios of sizes: odd sizes need no
padding.

Predicts eps with the Gaussian process (x0 or v if so trained). Differences to the released code, beside its dead
parts: the query has an activation between its two layers (there they are one linear map), and any rectangle works.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import require
from dreamsr.core import resize
from dreamsr.core.backbones.architecture import Architecture
from dreamsr.core.backbones.refiner import Encoder
from dreamsr.core.backbones.unet import UNet, require_unet
from dreamsr.core.denoiser import Condition
from dreamsr.errors import ConfigError

SLOPE = 0.2
"""Of the leaky ReLUs below zero."""


@dataclass(frozen=True)
class IDMConfig:
    """Sizes of the encoder and of the U-Net with the implicit decoder. The default is the paper's 16 to 128 net.

    encoder_channels, encoder_blocks: width and depth of the encoder of the small image.
    query_width: width of the layer that finds features at coordinates.
    channels, multipliers, blocks_per_level, attention_levels, dropout, groups: as in `SR3Config`.
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


def nearest(size: int, new_size: int) -> tuple[Tensor, Tensor]:
    """For each of `new_size` pixels the index [N] of the pixel of a coarser axis that it lies in, and where in it.

    The offset [N] float64 runs from -1 (the pixel's start, included) over 0 (its centre) to 1 (its end, excluded).
    Computed in whole numbers: where two grids meet, rounding would find the index and the offset of two neighbours.
    """
    position = (2 * torch.arange(new_size) + 1) * size  # in units of a (2 * new_size)-th of a coarse pixel
    index = position // (2 * new_size)
    offset = (position % (2 * new_size)).double() / new_size - 1
    return index, offset


def at_nearest(features: Tensor, height: int, width: int) -> Tensor:
    """[B,C,h,w] -> [B,C,height,width]: every pixel takes the nearest feature."""
    (rows, _), (columns, _) = nearest(features.shape[-2], height), nearest(features.shape[-1], width)
    tall = features.index_select(2, rows.to(features.device))  # [B,C,height,w]
    return tall.index_select(3, columns.to(features.device))  # [B,C,height,width]


class ScaleMix(nn.Module):
    """leaky_relu(s1 * x + s2 * shown): the factor decides the shares of generated and shown features.

    x and shown [B,C,h,w], strength [1,1] in [0,1] -> [B,C,h,w]. s1^2 + s2^2 = 1 in every channel. Starts near equal.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shares = nn.Linear(1, 2 * channels)
        nn.init.normal_(self.shares.weight, std=0.1)
        nn.init.ones_(self.shares.bias)

    def forward(self, x: Tensor, shown: Tensor, strength: Tensor) -> Tensor:
        shares = F.normalize(self.shares(strength).view(2, -1, 1, 1), dim=0)  # [2,C,1,1]
        return F.leaky_relu(shares[0] * x + shares[1] * shown, SLOPE)  # [B,C,h,w]


class CoordinateQuery(nn.Module):
    """What is at every pixel of a finer grid: the nearest feature and the place relative to it, through an MLP.

    features [B,C,h,w] -> [B,C,height,width].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Together one linear layer of C + 2 inputs. Only places differ between pixels that share a feature, so its
        # large part is computed on the coarse grid, with a quarter of the work.
        self.of_feature = nn.Conv2d(channels, width, 1)
        self.of_place = nn.Linear(2, width, bias=False)
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        known = at_nearest(self.of_feature(features), height, width)  # [B,Q,height,width]
        _, down = nearest(features.shape[-2], height)
        _, across = nearest(features.shape[-1], width)
        places = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).to(features)  # [height,width,2]
        found: Tensor = self.out(F.relu(known + self.of_place(places).movedim(-1, 0)))
        return found  # [B,C,height,width]


class IDM(nn.Module):
    """The backbone: `encode` once per image, `forward` once per step; any size, any factor in (1, scale].

    Raises ConfigError for a scale of 1, which leaves no factor to choose.
    """

    def __init__(self, config: IDMConfig, *, scale: int) -> None:
        super().__init__()
        if scale < 2:
            raise ConfigError(f"scale is {scale}, but it must be 2 or more for idm")
        self.scale = scale
        self.encoder = Encoder(config.encoder_channels, config.encoder_blocks)
        self.guide = nn.Conv2d(config.encoder_channels, 3, 3, padding=1)
        self.unet = UNet(config, inputs=6, outputs=3)
        coarse = self.unet.widths[1:]
        self.pyramid = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise((3, *coarse)))
        self.mixes = nn.ModuleList(ScaleMix(c) for c in coarse)
        self.queries = nn.ModuleList(CoordinateQuery(c, config.query_width) for c in coarse)

    def encode(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        """low [B,3,h,w] in [-1,1] -> y [B,3,H,W] bicubic, features [B,C,h,w].

        Raises ValueError for a factor outside (1, scale] and for one that gives parts of pixels.
        """
        factor = Fraction(self.scale) if scale is None else scale
        if not 1 < factor <= self.scale:
            raise ValueError(f"this net enlarges more than 1 and up to {self.scale} times, not {factor} times")
        height, width = low.shape[-2:]
        if height % factor.denominator or width % factor.denominator:
            raise ValueError(
                f"{factor} times {width}x{height} are no whole pixels; pad to a multiple of the denominator"
            )
        return Condition(y=resize.enlarge(low, factor), features=self.encoder(low))

    def forward(self, x_t: Tensor, condition: Condition, level: Tensor) -> Tensor:
        """x_t [B,3,H,W], level [B] in [0,1] -> eps [B,3,H,W]."""
        if condition.features is None:
            raise ValueError("IDM needs the features that its encode() returns")
        features, (height, width) = condition.features, x_t.shape[-2:]
        guide = self.guide(at_nearest(features, height, width))  # [B,3,H,W], in the place of SR3's bicubic
        shown = self.shown(guide)
        strength = self.strength(Fraction(height, features.shape[-2])).to(x_t)

        def enlarge(i: int, x: Tensor, size: tuple[int, int]) -> Tensor:
            mixed = self.mixes[i](x, shown[i], strength)  # [B,C,h(i+1),w(i+1)]
            found: Tensor = self.queries[i](mixed, *size)
            return found  # [B,C,hi,wi]

        joined = torch.cat([guide, x_t.to(guide.dtype)], dim=1)  # [B,6,H,W]
        out: Tensor = self.unet(joined.contiguous(memory_format=torch.channels_last), level, enlarge)
        return out.to(x_t.dtype)  # [B,3,H,W]

    def strength(self, factor: Fraction) -> Tensor:
        """How much is enlarged, as the net is told it: [1,1] float64, (factor - 1) / (scale - 1)."""
        return torch.tensor([[float((factor - 1) / (self.scale - 1))]], dtype=torch.float64)

    def shown(self, guide: Tensor) -> list[Tensor]:
        """guide [B,3,H,W] -> what it shows at every coarser level of the U-Net, [B,C,h,w] each."""
        levels = []
        for down in self.pyramid:
            guide = F.leaky_relu(down(guide), SLOPE)
            levels.append(guide)
        return levels


IDM_ARCHITECTURE = Architecture("idm", IDMConfig, lambda sizes, use: IDM(sizes, scale=use.scale), continuous=True)
