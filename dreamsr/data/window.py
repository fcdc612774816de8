"""A window of a shrunk photo, made from the part of the photo that it rests on: bit for bit the whole photo's.

Every pixel is the same sum in the same order whatever window it is asked for in (a matrix product promises no such
thing), in float64 on the values 0..255, where the sums of the even factors are exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dreamsr.core import resize

Photo = NDArray[np.uint8]
"""[H,W,3], RGB."""
Lines = NDArray[np.float64]

MARGIN_LOW_PX = 2
"""How far MATLAB's bicubic looks beyond a window, in px of the shrunk image."""


def shrunk_size(photo: Photo, factor: int, *, multiple: int = 1) -> tuple[int, int]:
    """(height, width) of a photo shrunk by `factor` as MATLAB does, then cut to a `multiple`."""
    height, width = (-(-n // factor) // multiple * multiple for n in photo.shape[:2])
    return height, width


def shrunk_window(photo: Photo, factor: int, *, top: int, left: int, height: int, width: int) -> Photo:
    """Rows `top`.. and columns `left`.. [height,width,3] of MATLAB's `imresize(photo, 1/factor)`, byte for byte."""
    if factor == 1:
        return photo[top : top + height, left : left + width].copy()
    offset, weights = _taps(factor)
    rows = _mirrored(factor * top + offset, factor * (height - 1) + len(weights), photo.shape[0])
    columns = _mirrored(factor * left + offset, factor * (width - 1) + len(weights), photo.shape[1])
    part = photo[rows[:, None], columns].astype(np.float64)  # [factor*height+.., factor*width+.., 3]
    tall = _grey_levels(_every(part, factor, height, weights))  # [height, factor*width+.., 3]
    small = _every(tall.swapaxes(0, 1), factor, width, weights).swapaxes(0, 1)  # [height,width,3]
    return np.asarray(_grey_levels(small), np.uint8)


def cut_pair(photo: Photo, *, factor: int, scale: int, top: int, left: int, side: int) -> tuple[Photo, Photo]:
    """The crop (low [side,side,3], large [scale*side,scale*side,3]) at (`top`, `left`) of the small image.

    Equal to shrinking the whole photo by `factor`, cutting it to a multiple of `scale` and shrinking it again.
    """
    large, (above, before) = cut_large(
        photo, factor=factor, scale=scale, top=top, left=left, side=side, margin=(MARGIN_LOW_PX, MARGIN_LOW_PX)
    )
    low = shrunk_window(large, scale, top=above, left=before, height=side, width=side)
    return low, inner(large, scale * above, scale * before, scale * side)


def cut_large(
    photo: Photo, *, factor: int, scale: int, top: int, left: int, side: int, margin: tuple[int, int]
) -> tuple[Photo, tuple[int, int]]:
    """The large crop with a margin, and how much margin there is (above, before), all in px of the small image.

    The margin is `margin` rows above and below and columns before and behind the crop, less where the photo ends.
    """
    height, width = (n // scale for n in shrunk_size(photo, factor, multiple=scale))
    first_row, first_column = max(0, top - margin[0]), max(0, left - margin[1])
    last_row, last_column = min(height, top + side + margin[0]), min(width, left + side + margin[1])
    large = shrunk_window(
        photo,
        factor,
        top=scale * first_row,
        left=scale * first_column,
        height=scale * (last_row - first_row),
        width=scale * (last_column - first_column),
    )
    return large, (top - first_row, left - first_column)


def inner(image: Photo, top: int, left: int, side: int) -> Photo:
    """The square [side,side,3] at (`top`, `left`)."""
    return image[top : top + side, left : left + side]


@lru_cache(maxsize=32)
def _taps(factor: int) -> tuple[int, tuple[float, ...]]:
    """(first row, weights) with which row 0 of a photo shrunk by a whole factor is summed; row i starts factor*i later.

    With a whole factor every row away from the borders has the same weights.
    """
    row = resize.resize_matrix(12 * factor, 12, 1 / factor)[6].numpy()
    used = np.flatnonzero(row)
    return int(used[0]) - 6 * factor, tuple(float(w) for w in row[used[0] : used[-1] + 1])


def _every(lines: Lines, factor: int, count: int, weights: tuple[float, ...]) -> Lines:
    """The weighted sum of the lines from each `factor`-th on, [count,...]."""
    total = np.zeros((count, *lines.shape[1:]))
    for first, weight in enumerate(weights):
        total += weight * lines[first : first + factor * (count - 1) + 1 : factor]
    return total


def _grey_levels(lines: Lines) -> Lines:
    """Rounded to 0..255, halves up, as MATLAB does after the rows and after the columns of a uint8 image."""
    return np.floor(np.clip(lines, 0, 255) + 0.5)


def _mirrored(first: int, count: int, size: int) -> NDArray[np.intp]:
    """Positions first.. [count] in a line of `size` that is mirrored about its outer edges."""
    position = np.arange(first, first + count) % (2 * size)
    return np.where(position < size, position, 2 * size - 1 - position)
