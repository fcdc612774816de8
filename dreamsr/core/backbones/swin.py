"""Attention inside windows, every second layer in shifted ones (Liu et al. 2021, Swin Transformer, arXiv 2103.14030).

Work grows with the number of pixels, not with its square. Swin rolls the picture to shift its windows and masks
what met across the border. Here the picture is padded instead, at the top and left as well, and the padding is
masked: the same windows hold the same pixels, any size fits, and no opposite borders ever meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.core.backbones.unet import zeroed


@dataclass(frozen=True)
class Cut:
    """How one axis is cut into `count` windows of `side` px, after `before` and `after` px of padding."""

    side: int
    before: int
    after: int
    count: int


def cut(size: int, window: int, *, shifted: bool) -> Cut:
    """The windows along an axis of `size` px; each holds at least one px of it.

    An axis that fits in one window is one smaller window, unshifted and without padding. Shifted windows start at
    `window // 2`, so the first holds that many px.
    """
    if size <= window:
        return Cut(side=size, before=0, after=0, count=1)
    before = -(window // 2) % window if shifted else 0
    after = -(before + size) % window
    return Cut(side=window, before=before, after=after, count=(before + size + after) // window)


class WindowAttention(nn.Module):
    """Attention of every pixel to its window, with a learnt bias per head and relative position (Liu et al., eq. 4).

    x [B,h,w,D] -> [B,h,w,D], any h and w.
    """

    def __init__(self, width: int, *, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shifted = shifted
        self.query_key_value = nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.empty(heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        rows, columns = (cut(size, self.window, shifted=self.shifted) for size in (height, width))
        # Padded only here, where windows are: the linear layers see real pixels alone.
        query, key, value = self.to_windows(self.query_key_value(x), rows, columns)  # [B,R*S*heads,a*b,d] each
        mask = self.mask(height, width, rows, columns).to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        whole = self.from_windows(mixed, rows, columns)  # [B,R*a,S*b,D]
        kept = whole[:, rows.before : rows.before + height, columns.before : columns.before + width]
        out: Tensor = self.out(kept)
        return out  # [B,h,w,D]

    def to_windows(self, joined: Tensor, rows: Cut, columns: Cut) -> Tensor:
        """[B,h,w,3D] -> query, key and value [3,B,R*S*heads,a*b,d] of R x S windows of a x b px, zero where padded."""
        padded = F.pad(joined, (0, 0, columns.before, columns.after, rows.before, rows.after))  # [B,R*a,S*b,3D]
        shape = (len(joined), rows.count, rows.side, columns.count, columns.side, 3, self.heads, -1)
        windows = padded.reshape(shape).permute(5, 0, 1, 3, 6, 2, 4, 7)  # [3,B,R,S,heads,a,b,d]
        return windows.flatten(5, 6).flatten(2, 4)

    def from_windows(self, mixed: Tensor, rows: Cut, columns: Cut) -> Tensor:
        """[B,R*S*heads,a*b,d] -> [B,R*a,S*b,D], the way back, still padded."""
        shape = (len(mixed), rows.count, columns.count, self.heads, rows.side, columns.side, -1)
        apart = mixed.reshape(shape).permute(0, 1, 4, 2, 5, 3, 6)  # [B,R,a,S,b,heads,d]
        return apart.flatten(5, 6).flatten(3, 4).flatten(1, 2)

    def mask(self, height: int, width: int, rows: Cut, columns: Cut) -> Tensor:
        """What is added to the scores, [R*S*heads,a*b,a*b]: the bias, and -inf for padded keys."""
        real = torch.ones(height, width, dtype=torch.bool, device=self.bias.device)
        real = F.pad(real, (columns.before, columns.after, rows.before, rows.after))  # [R*a,S*b]
        keys = real.reshape(rows.count, rows.side, columns.count, columns.side).transpose(1, 2)  # [R,S,a,b]
        keys = keys.flatten(2, 3).flatten(0, 1)  # [R*S,a*b]
        bias = self.relative_bias(rows.side, columns.side)
        return torch.where(keys[:, None, None, :], bias, float("-inf")).flatten(0, 1)

    def relative_bias(self, rows: int, columns: int) -> Tensor:
        """[heads,a*b,a*b] for a window of a = `rows` x b = `columns` px: query first, then key.

        A smaller window uses the middle of the table. Worked out on the fly: it is no parameter to be saved.
        """
        down, right = (offsets(side, self.window, like=self.bias) for side in (rows, columns))
        bias = self.bias[:, down[:, None, :, None], right[None, :, None, :]]  # [heads,a,b,a,b]
        return bias.flatten(3, 4).flatten(1, 2)


def offsets(side: int, window: int, *, like: Tensor) -> Tensor:
    """[side,side]: the place of query i and key j in a table of 2 * window - 1 entries, i - j from its middle."""
    place = torch.arange(side, device=like.device)
    return place[:, None] - place[None, :] + window - 1


class SwinLayer(nn.Module):
    """Window attention, then two linear layers on each pixel, each normalised before and added (eq. 3).

    x [B,h,w,D] -> [B,h,w,D].
    """

    def __init__(self, width: int, *, heads: int, window: int, shifted: bool, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads=heads, window=window, shifted=shifted)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        change: Tensor = self.mlp(self.mlp_norm(x))
        return x + change  # [B,h,w,D]


class SwinBlock(nn.Module):
    """x + Swin layers, alternately plain and shifted, between two 1x1 convolutions. [B,C,h,w] -> [B,C,h,w].

    Starts as the identity.
    """

    def __init__(self, channels: int, *, width: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1)
        self.layers = nn.Sequential(
            *(SwinLayer(width, heads=heads, window=window, shifted=i % 2 == 1) for i in range(depth))
        )
        self.leave = zeroed(nn.Conv2d(width, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layers(self.enter(x).permute(0, 2, 3, 1))  # [B,h,w,D]
        change: Tensor = self.leave(tokens.permute(0, 3, 1, 2))
        return x + change  # [B,C,h,w]
