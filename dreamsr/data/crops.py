"""Training crops by number: the same number and seed give the same pair, in any order, in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.core.noise import seed_of
from dreamsr.core.pixels import to_tensor
from dreamsr.data.degradation import degrade_photo
from dreamsr.data.photo_files import Photos
from dreamsr.data.settings import CropConfig
from dreamsr.data.window import Photo, cut_large, cut_pair, inner, shrunk_size
from dreamsr.drawing.drawn import draw_picture, drawn_side_px, is_drawn
from dreamsr.drawing.fonts import Font

JPEG_BLOCK_PX = 8
DAMAGE_MARGIN_LOW_PX = 8
"""Around a crop that is damaged: as far as blur, resizing and JPEG's blocks reach, in px of the small image."""


class CropPairs(Protocol):
    """Pairs (low, x0) by number, a pure function of (seed, number); can be pickled for loaders' workers.

    `refused` tells, a line each, which photos cannot be used and why; `fonts` names those of drawn pictures.
    """

    refused: list[str]
    fonts: tuple[str, ...]

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """low [3,p,p] and x0 [3,s*p,s*p], float32 in [-1,1] on 8-bit values. Raises DataError."""
        ...

    def __len__(self) -> int:
        """How many photos the crops are cut from; of crops there is no end."""
        ...

    def fingerprint(self) -> str:
        """Tells whether two runs saw the same data."""
        ...


class PhotoPairs:
    """Crops of photos, with small images made here: by MATLAB's bicubic, or damaged as config.photo says.

    config.drawn_share of the crops are cut from pictures drawn with the fonts `drawn_with`, and not turned.
    """

    def __init__(self, photos: Photos, config: CropConfig, drawn_with: Sequence[Font] = ()) -> None:
        self.photos = photos
        self.config = config
        self.refused = photos.refused
        self.drawn_with = tuple(drawn_with) if config.drawn_share else ()
        self.fonts = tuple(font.name for font in self.drawn_with)

    def __len__(self) -> int:
        return len(self.photos)

    def fingerprint(self) -> str:
        """That of the photos; where some pictures are drawn, the names of the fonts count too."""
        found = self.photos.fingerprint()
        return hashlib.sha256("\n".join((found, *self.fonts)).encode()).hexdigest() if self.fonts else found

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        seed, scale, side = self.config.seed, self.config.scale, self.config.crop_low_px
        drawn = is_drawn(seed, number, share=self.config.drawn_share)
        if drawn:
            photo = draw_picture(seed, number, drawn_side_px(side, scale), self.drawn_with)
        else:
            photo = self.photos.photo_for(seed, number)
        draw = crop_draws(seed, number)
        factor = self._factor(draw, min(photo.shape[:2]))
        height, width = (n // scale for n in shrunk_size(photo, factor, multiple=scale))
        green = photo[:: factor * scale, :: factor * scale, 1][:height, :width]
        top, left = most_detailed_place(draw, green, side, self.config.crop_candidates)
        if self.config.degradation == "photo":
            low, large = self._damaged(draw, photo, factor, top, left)
        else:
            low, large = cut_pair(photo, factor=factor, scale=scale, top=top, left=left, side=side)
        turn = int(draw.integers(8))
        return turned(low, large, 0 if drawn else turn)  # letters are read upright, and no two drawn ones are alike

    def _factor(self, draw: np.random.Generator, short_side_px: int) -> int:
        """One of the factors at which the photo still holds a crop; 1 where none does."""
        need = self.config.smallest_side_px
        fitting = [factor for factor in self.config.shrink_factors if short_side_px >= need * factor]
        return int(draw.choice(fitting)) if fitting else 1

    def _damaged(
        self, draw: np.random.Generator, photo: Photo, factor: int, top: int, left: int
    ) -> tuple[Photo, Photo]:
        """(low, large). The margin varies, or every crop would begin with a whole JPEG block."""
        scale, side = self.config.scale, self.config.crop_low_px
        above, before = (DAMAGE_MARGIN_LOW_PX + int(n) for n in draw.integers(JPEG_BLOCK_PX, size=2))
        large, (above, before) = cut_large(
            photo, factor=factor, scale=scale, top=top, left=left, side=side, margin=(above, before)
        )
        seed = int(draw.integers(2**63))
        low = degrade_photo(large, scale=scale, config=self.config.photo, seed=seed)
        return inner(low, above, before, side), inner(large, scale * above, scale * before, scale * side)


def crop_draws(seed: int, number: int) -> np.random.Generator:
    """The draws for place, damage and turn of one crop; those of its photo are others."""
    return np.random.default_rng(seed_of(seed, number, 2))


def most_detailed_place(
    draw: np.random.Generator, green: NDArray[np.uint8], side: int, candidates: int
) -> tuple[int, int]:
    """(top, left) of the square window with the largest mean gradient among `candidates` random ones.

    `green` [h,w] has the size of the small image. It may be every n-th pixel of the photo, not filtered: noise then
    counts as detail, but alike everywhere in one photo, and no photo need be shrunk for a look at it.
    """
    best, most = (0, 0), -1.0
    for _ in range(candidates):
        top = int(draw.integers(green.shape[0] - side + 1))
        left = int(draw.integers(green.shape[1] - side + 1))
        window = green[top : top + side, left : left + side].astype(np.int16)
        detail = float(np.abs(np.diff(window, axis=0)).mean() + np.abs(np.diff(window, axis=1)).mean())
        if detail > most:
            best, most = (top, left), detail
    return best


def turned(low: Photo, large: Photo, which: int) -> tuple[Tensor, Tensor]:
    """A pair of square images as tensors [3,n,n] in [-1,1], in one of the eight flips and turns."""
    pair = []
    for pixels in (low, large):
        pixels = pixels[:, ::-1] if which & 1 else pixels
        pixels = pixels[::-1] if which & 2 else pixels
        pair.append(to_tensor(pixels.swapaxes(0, 1) if which & 4 else pixels))
    return pair[0], pair[1]
