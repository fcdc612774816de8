"""How large the result is to be, and the shortest chain of nets that gets there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from dreamsr.errors import UsageError

MAX_SCALE = 16.0
FACTOR_PARTS = 40
"""Continuous nets enlarge by multiples of 1/40: fine enough for 3.7, 2.25 and 1.125, coarse enough for tiles."""


@dataclass(frozen=True)
class Size:
    """What was asked for: a `scale` in (1, 16], or `width`, `height` or `max_side` in pixels.

    With width or height alone the other follows; with both the result has exactly that size.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    max_side: int | None = None

    def __post_init__(self) -> None:
        sides = {"width": self.width, "height": self.height, "max_side": self.max_side}
        for field, value in sides.items():
            if value is not None and value < 1:
                raise UsageError(f"`{field}` is {value}, but it must be 1 or more")
        asked = [self.scale is not None, self.width is not None or self.height is not None, self.max_side is not None]
        if sum(asked) != 1:
            raise UsageError("choose one of `scale`, `width` and `height`, or `max_side`")
        if self.scale is not None and not 1 < self.scale <= MAX_SCALE:
            raise UsageError(f"`scale` is {self.scale:g}, but it must be above 1 and at most {MAX_SCALE:g}")

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result of a height x width picture. Raises UsageError where that is no larger."""
        if self.scale is not None:
            return _rounded(height * self.scale), _rounded(width * self.scale)
        if self.max_side is not None:
            factor = self.max_side / max(height, width)
            target = _rounded(height * factor), _rounded(width * factor)
        elif self.width is not None and self.height is not None:
            target = self.height, self.width
        elif self.width is not None:
            target = _rounded(height * self.width / width), self.width
        else:
            target = self.height or 1, _rounded(width * (self.height or 1) / height)
        check_target(height, width, *target, must_grow=True)
        return target


def _rounded(length: float) -> int:
    return max(1, math.floor(length + 0.5))


def check_target(height: int, width: int, target_height: int, target_width: int, *, must_grow: bool = False) -> None:
    """Raise UsageError unless the target is at least as large as the picture and at most 16 times that."""
    shrinks = target_height < height or target_width < width
    if shrinks or (must_grow and (target_height, target_width) == (height, width)):
        raise UsageError(f"{width}x{height} to {target_width}x{target_height} does not enlarge; choose a larger size")
    if target_height > MAX_SCALE * height + 1 or target_width > MAX_SCALE * width + 1:
        raise UsageError(
            f"{width}x{height} to {target_width}x{target_height} is more than {MAX_SCALE:g} times; "
            "choose a smaller size"
        )


@dataclass(frozen=True)
class Pass:
    """One net over a whole image: the size in pixels that it starts from, and its scale."""

    height: int
    width: int
    scale: Fraction | int

    def reaches(self, target_height: int, target_width: int) -> bool:
        """Whether the result has the target's size but for rounding."""
        return _fits(self.height, self.width, target_height, target_width, self.scale)


def whole_px(size: int, scale: Fraction | int) -> int:
    """The least size, from `size` on, that enlarges to whole pixels."""
    return -(-size // scale.denominator) * scale.denominator


def plan_passes(
    height: int, width: int, target_height: int, target_width: int, scales: Sequence[int], *, continuous: bool = False
) -> list[Pass]:
    """The shortest chain of nets of the given `scales` that reaches the target; one Lanczos resize completes it.

    A chain of one resizes after its net. A longer chain resizes *before* its last net, to a `scale`-th of the
    target: the net then sees a picture as sharp as those it was trained on and computes no pixels in vain.
    A `continuous` net, whose largest scale is that in `scales`, takes what factor is left and has nothing to resize
    wherever `continuous_factor` is exact.
    """
    chain = cheapest_chain(max(target_height / height, target_width / width), scales)
    passes = []
    for scale in chain:
        passes.append(Pass(height, width, scale))
        height, width = height * scale, width * scale
    last = passes[-1]
    if continuous:
        left = continuous_factor(last.height, last.width, target_height, target_width, most=chain[-1])
        passes[-1] = Pass(last.height, last.width, left)
    elif len(chain) > 1:
        passes[-1] = Pass(math.ceil(target_height / chain[-1]), math.ceil(target_width / chain[-1]), chain[-1])
    return passes


def cheapest_chain(factor: float, scales: Sequence[int]) -> tuple[int, ...]:
    """The fewest nets whose scales multiply to `factor` or more, and of those the one that computes fewest pixels.

    Its last net gives the target's pixels, `factor` squared, if it is not the only one: all nets cost about the same
    for each pixel they give.
    """
    if max(scales) == 1:
        return (1,)

    def cost(chain: tuple[int, ...]) -> float:
        given = [math.prod(chain[: number + 1]) ** 2 for number in range(len(chain))]
        return sum(given[:-1]) + (factor**2 if len(chain) > 1 else given[0])

    count = max(1, math.ceil(math.log(factor) / math.log(max(scales)) - 1e-9))
    reaching = (chain for chain in product(scales, repeat=count) if math.prod(chain) >= factor * (1 - 1e-9))
    return min(reaching, key=cost)


def continuous_factor(height: int, width: int, target_height: int, target_width: int, *, most: int) -> Fraction:
    """The multiple of 1/40 in (1, most] with which a continuous net reaches the target.

    Exact where one rounds to the target on both sides, else the next larger one. Several fit a picture of less
    than 40 px: the roundest is taken, 3.7 rather than 3.725, for it is what was asked for.
    """
    for parts in (1, 10, 20, FACTOR_PARTS):
        least = max(Fraction(2 * target_height - 1, 2 * height), Fraction(2 * target_width - 1, 2 * width))
        factor = Fraction(max(math.ceil(least * parts), parts + 1), parts)
        if factor <= most and _fits(height, width, target_height, target_width, factor):
            return factor
    ratio = max(Fraction(target_height, height), Fraction(target_width, width))
    return min(Fraction(most), Fraction(max(math.ceil(ratio * FACTOR_PARTS), FACTOR_PARTS + 1), FACTOR_PARTS))


def _fits(height: int, width: int, target_height: int, target_width: int, factor: Fraction | int) -> bool:
    """Halves may be rounded either way: as a float, 1.025 * 900 is less than 922.5."""
    sizes = ((height, target_height), (width, target_width))
    return all(abs(Fraction(factor * size) - target) <= Fraction(1, 2) for size, target in sizes)
