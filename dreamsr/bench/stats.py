"""How sure a figure is: spread over seeds, bootstrap over images, paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
CHUNK = 1_000


@dataclass(frozen=True)
class Estimate:
    """A mean over images (of means over seeds), its 95 % interval over images, its deviation over seeds.

    `low` and `high` are None for fewer than two images, `seed_std` for fewer than two seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seed_std: float | None
    images: int
    seeds: int


def estimate(table: Sequence[Sequence[float]]) -> Estimate:
    """From [seeds][images] values. `seed_std` is the deviation of the set's mean, ddof = 1."""
    values = np.asarray(table, dtype=np.float64)  # [seeds, images]
    seeds, images = values.shape
    with np.errstate(invalid="ignore"):  # infinite values (equal images) have no deviation
        spread = float(values.mean(axis=1).std(ddof=1)) if seeds > 1 else None
        low, high = interval(values.mean(axis=0))
    return Estimate(float(values.mean()), low, high, _finite(spread), images, seeds)


def interval(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The percentile bootstrap interval of the mean over `values` [n]; the same every time."""
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return None, None
    draw = np.random.default_rng(0)
    means = [
        draw.multinomial(count, np.full(count, 1 / count), size=CHUNK) @ values / count  # [CHUNK]
        for _ in range(RESAMPLES // CHUNK)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """a - b over the same images: mean, 95 % interval, and on how many of the images `a` is the better one."""

    mean: float
    low: float | None
    high: float | None
    better: int
    images: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, lower_is_better: bool = False
) -> Difference | None:
    """From [seeds][images] of two methods over the same images; None where an infinite value makes it undefined."""
    with np.errstate(invalid="ignore"):
        values = np.asarray(a, dtype=np.float64).mean(axis=0) - np.asarray(b, dtype=np.float64).mean(axis=0)  # [images]
    if not np.isfinite(values).all():
        return None
    low, high = interval(values)
    better = int((values < 0).sum() if lower_is_better else (values > 0).sum())
    return Difference(float(values.mean()), low, high, better, len(values))


def paired_over_seeds(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, lower_is_better: bool = False
) -> Difference | None:
    """As `paired`, where seed i of both goes together: the interval is that over other seeds and images alike."""
    with np.errstate(invalid="ignore"):
        values = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)  # [seeds, images]
    if not np.isfinite(values).all():
        return None
    low, high = crossed_interval(values)
    images = values.mean(axis=0)
    better = int((images < 0).sum() if lower_is_better else (images > 0).sum())
    return Difference(float(values.mean()), low, high, better, len(images))


def crossed_interval(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The percentile bootstrap interval of the mean of `values` [seeds, images], both drawn again, independently."""
    seeds, images = values.shape
    if images < 2:
        return None, None
    draw = np.random.default_rng(0)
    means = [
        np.einsum(
            "cs,si,ci->c",
            draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=CHUNK) / seeds,  # [CHUNK, seeds]
            values,
            draw.multinomial(images, np.full(images, 1 / images), size=CHUNK) / images,  # [CHUNK, images]
        )
        for _ in range(RESAMPLES // CHUNK)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
