"""Uncertainty: against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dreamsr.bench.stats import estimate, interval, paired


def test_the_bootstrap_interval_is_that_of_the_normal_for_many_images() -> None:
    values = np.random.default_rng(1).normal(30, 2, 400)
    low, high = interval(values)
    assert low is not None
    assert high is not None
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert interval(values) == (low, high)


def test_estimates_separate_seeds_from_images() -> None:
    table = [[1.0, 3.0], [2.0, 4.0]]
    found = estimate(table)
    assert found.mean == 2.5
    assert found.seed_std == pytest.approx(math.sqrt(0.5))
    assert (found.images, found.seeds) == (2, 2)
    assert estimate([[5.0]]).low is None
    assert estimate([[5.0]]).seed_std is None


def test_infinite_values_have_no_interval() -> None:
    assert estimate([[math.inf, 1.0]]).mean == math.inf
    assert estimate([[math.inf, 1.0]]).low is None
    assert paired([[math.inf, 1.0]], [[1.0, 1.0]]) is None


def test_a_small_steady_difference_is_clear_though_images_differ_much() -> None:
    draw = np.random.default_rng(2)
    images = draw.normal(30, 5, 20)
    a, b = [list(images + 0.1 + draw.normal(0, 0.05, 20))], [list(images)]
    found = paired(a, b)
    assert found is not None
    assert found.is_clear
    assert found.mean == pytest.approx(0.1, abs=0.05)
    assert found.better > 15
    assert paired(a, b, lower_is_better=True).better < 5  # type: ignore[union-attr]
    nothing = paired(b, b)
    assert nothing is not None
    assert not nothing.is_clear
