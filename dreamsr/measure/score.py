"""Every figure of one result, computed in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean

from dreamsr.core.pixels import Pixels
from dreamsr.measure.metrics import REPORTED, Comparison, Metric

Scores = Mapping[str, float | None]
Perceive = Callable[[Pixels, Pixels], Mapping[str, float]]
"""(image, truth) -> what networks say, as `measure.lpips.Perceptual`."""


def score(found: Comparison, perceptual: Perceive, metrics: Iterable[Metric] = REPORTED.values()) -> Scores:
    """Key -> figure for each of the metrics; None for what luma alone does not give, or no network here."""
    scores: dict[str, float | None] = {metric.key: None for metric in metrics}
    for metric in metrics:
        if metric.compute is not None and (metric.on_luma or found.pixels is not None):
            scores[metric.key] = metric.compute(found)
    if found.pixels is not None:
        seen = perceptual(found.pixels, found.truth)
        scores |= {key: value for key, value in seen.items() if key in scores}
    return scores


def means(scores: Iterable[Scores]) -> Scores:
    """The mean of each figure; None as soon as one picture has none: a mean over some is not the mean."""
    columns: dict[str, list[float | None]] = {}
    for one in scores:
        for key, value in one.items():
            columns.setdefault(key, []).append(value)
    return {key: mean_of(values) for key, values in columns.items()}


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean; None as soon as one value is missing."""
    column = list(values)
    known = [value for value in column if value is not None]
    return fmean(known) if known and len(known) == len(column) else None
