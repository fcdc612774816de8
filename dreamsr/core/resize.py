"""How a small image is made from a large one: MATLAB's antialiased bicubic `imresize`, in torch.

A resize along one axis is a small dense matrix, so a batch is resized by two matrix products.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = -1/2 (Keys 1981), support [-2,2]."""
    a = x.abs()
    inner = 1.5 * a**3 - 2.5 * a**2 + 1
    outer = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return torch.where(a <= 1, inner, torch.where(a <= 2, outer, torch.zeros_like(a)))


def resize_matrix(size: int, new_size: int, scale: float) -> Tensor:
    """[new_size, size] float64, rows sum to 1: MATLAB's `imresize` along one axis.

    `scale` places the samples (new_size need not be size * scale exactly); shrinking widens the kernel so
    that it also filters; borders are mirrored with the edge repeated, as MATLAB does.
    """
    stretch = min(scale, 1.0)
    support = 4.0 / stretch
    taps = math.ceil(support) + 2
    centre = (torch.arange(new_size, dtype=torch.float64) + 0.5) / scale - 0.5
    first = (centre - support / 2).floor()
    index = first[:, None] + torch.arange(taps, dtype=torch.float64)
    weight = stretch * cubic(stretch * (centre[:, None] - index))
    weight = weight / weight.sum(1, keepdim=True)
    mirror = torch.cat([torch.arange(size), torch.arange(size).flip(0)])
    column = mirror[index.long() % (2 * size)]
    matrix = torch.zeros(new_size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, column, weight)


def resize(image: Tensor, height: int, width: int, *, scale: float | None = None) -> Tensor:
    """Bicubic with antialiasing to height x width, [..., H, W] -> [..., height, width], in the image's dtype.

    With `scale` the samples sit where MATLAB's `imresize(image, scale)` puts them; without it, where
    `imresize(image, [height width])` does.
    """
    with torch.autocast(image.device.type, enabled=False):
        return _resize_columns(_resize_rows(image, height, scale), width, scale)


def _resize_rows(image: Tensor, height: int, scale: float | None) -> Tensor:
    """[..., H, W] -> [..., height, W]."""
    blocks = _blocks(image.shape[-2], height, scale or height / image.shape[-2])
    return torch.cat([part.to(image) @ image[..., first:last, :] for first, last, part in blocks], dim=-2)


def _resize_columns(image: Tensor, width: int, scale: float | None) -> Tensor:
    """[..., H, W] -> [..., H, width]."""
    blocks = _blocks(image.shape[-1], width, scale or width / image.shape[-1])
    return torch.cat([image[..., first:last] @ part.to(image).mT for first, last, part in blocks], dim=-1)


@lru_cache(maxsize=64)
def _blocks(size: int, new_size: int, scale: float, *, rows: int = 64) -> list[tuple[int, int, Tensor]]:
    """`resize_matrix` cut into blocks of rows, each with the columns (first, last) that are not all zero.

    The matrix is a narrow band: block by block a whole photo costs a tenth of the dense product.
    """
    blocks = []
    for part in torch.split(resize_matrix(size, new_size, scale), rows):
        used = part.abs().sum(0).nonzero()
        first, last = int(used[0]), int(used[-1]) + 1
        blocks.append((first, last, part[:, first:last].contiguous()))
    return blocks


def shrink(image: Tensor, factor: Fraction | int) -> Tensor:
    """MATLAB's `imresize(image, 1/factor)`, [..., H, W] -> [..., ceil(H/factor), ceil(W/factor)]."""
    if factor == 1:
        return image
    height, width = (math.ceil(n / factor) for n in image.shape[-2:])
    return resize(image, height, width, scale=float(1 / factor))


def enlarge(image: Tensor, factor: Fraction | int) -> Tensor:
    """MATLAB's `imresize(image, factor)`, [..., h, w] -> [..., ceil(factor*h), ceil(factor*w)]."""
    height, width = (math.ceil(factor * n) for n in image.shape[-2:])
    return resize(image, height, width, scale=float(factor))


def to_grey_levels(image: Tensor) -> Tensor:
    """Clipped and rounded to the 256 values 0..255 of an 8-bit file, same shape and dtype; halves round up."""
    return (image.clamp(0, 255) + 0.5).floor()


def shrink_8_bit(image: Tensor, factor: Fraction | int) -> Tensor:
    """MATLAB's `imresize(image, 1/factor)` of a uint8 image: as `shrink`, but in whole values 0..255.

    MATLAB rounds after the rows and again after the columns, so a tenth of the values differ by one from those of an
    image that is rounded once. image: [..., H, W] float64, whose sums are exact for factors that are powers of two.
    """
    if factor == 1:
        return image
    height, width = (math.ceil(n / factor) for n in image.shape[-2:])
    return _resize_8_bit(image, height, width, float(1 / factor))


def enlarge_8_bit(image: Tensor, factor: Fraction | int) -> Tensor:
    """MATLAB's `imresize(image, factor)` of a uint8 image, as `shrink_8_bit`."""
    height, width = (math.ceil(factor * n) for n in image.shape[-2:])
    return _resize_8_bit(image, height, width, float(factor))


def _resize_8_bit(image: Tensor, height: int, width: int, scale: float) -> Tensor:
    tall = to_grey_levels(_resize_rows(image, height, scale))
    return to_grey_levels(_resize_columns(tall, width, scale))


def as_stored(image: Tensor) -> Tensor:
    """[-1,1] -> [-1,1] on the 256 values that an 8-bit file can hold."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
