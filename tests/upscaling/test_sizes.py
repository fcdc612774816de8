"""What size a result gets, and by how many nets."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamsr.errors import UsageError
from dreamsr.upscaling.sizes import (
    FACTOR_PARTS,
    MAX_SCALE,
    Pass,
    Size,
    cheapest_chain,
    check_target,
    continuous_factor,
    plan_passes,
    whole_px,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(scale=4), (400, 800)),
        (Size(scale=1.5), (150, 300)),
        (Size(width=1000), (500, 1000)),
        (Size(height=150), (150, 300)),
        (Size(width=300, height=300), (300, 300)),
        (Size(max_side=400), (200, 400)),
    ],
)
def test_sizes_of_a_200x100_picture(size: Size, expected: tuple[int, int]) -> None:
    assert size.of(100, 200) == expected


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"scale": 1.0},
        {"scale": 16.5},
        {"scale": float("nan")},
        {"width": 0},
        {"max_side": -5},
        {"scale": 2.0, "width": 100},
        {"max_side": 100, "height": 100},
    ],
)
def test_impossible_requests_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Size(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [Size(width=200), Size(width=100), Size(max_side=199), Size(width=300, height=50)])
def test_what_does_not_enlarge_is_refused(size: Size) -> None:
    with pytest.raises(UsageError, match="does not enlarge"):
        size.of(100, 200)


def test_more_than_sixteen_times_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 16 times"):
        check_target(10, 10, 200, 200)


def test_a_single_pixel_may_stay_one() -> None:
    assert Size(scale=1.2).of(1, 1) == (1, 1)


@pytest.mark.parametrize(
    ("target", "scales"),
    [((100, 200), 1), ((400, 800), 1), ((401, 801), 2), ((1600, 3200), 2), ((120, 240), 1)],
)
def test_the_chain_is_the_shortest(target: tuple[int, int], scales: int) -> None:
    assert len(plan_passes(100, 200, *target, (4,))) == scales


def test_a_chain_of_two_ends_at_the_target() -> None:
    assert plan_passes(10, 20, 75, 150, (4,)) == [Pass(10, 20, 4), Pass(19, 38, 4)]


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    factor=st.floats(1.01, MAX_SCALE),
    scale=st.integers(1, 4),
)
def test_every_chain_reaches_its_target(height: int, width: int, factor: float, scale: int) -> None:
    tall, wide = Size(scale=factor).of(height, width)
    passes = plan_passes(height, width, tall, wide, (scale,))
    assert passes[0] == Pass(height, width, scale) or len(passes) > 1
    if scale > 1:
        assert passes[-1].height * scale >= min(tall, height * scale)
        assert len(passes) <= 5
    if len(passes) > 1:
        assert 0 <= passes[-1].height * scale - tall < scale
        assert 0 <= passes[-1].width * scale - wide < scale


# Continuous nets


def factor_for(height: int, width: int, asked: float, *, most: int = 4) -> Fraction:
    return continuous_factor(height, width, *Size(scale=asked).of(height, width), most=most)


@pytest.mark.parametrize("asked", [Fraction(37, 10), Fraction(9, 4), Fraction(3, 2), Fraction(9, 8), Fraction(4)])
@pytest.mark.parametrize("size", [(100, 200), (41, 3), (1, 40), (333, 517)])
def test_multiples_of_a_fortieth_are_taken_as_they_are(size: tuple[int, int], asked: Fraction) -> None:
    assert factor_for(*size, float(asked)) == asked


@pytest.mark.parametrize(("size", "factor"), [((11, 11), "3.7"), ((13, 13), "3.7"), ((1, 1), "4"), ((1, 2), "3.5")])
def test_small_pictures_take_the_roundest_factor(size: tuple[int, int], factor: str) -> None:
    """Nothing in the sizes tells 3.7 from 3.725 here: 11 px become 41 either way."""
    assert factor_for(*size, 3.7) == Fraction(factor)


@pytest.mark.parametrize(
    ("target", "factor"),
    [((371, 742), "3.725"), ((370, 741), "3.725"), ((100, 200), "1.025"), ((200, 300), "2"), ((399, 799), "4")],
)
def test_other_targets_take_the_next_larger_one(target: tuple[int, int], factor: str) -> None:
    assert continuous_factor(100, 200, *target, most=4) == Fraction(factor)


@given(
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    parts=st.integers(FACTOR_PARTS + 1, 4 * FACTOR_PARTS),
)
def test_every_multiple_of_a_fortieth_needs_no_resize(height: int, width: int, parts: int) -> None:
    target = Size(scale=parts / FACTOR_PARTS).of(height, width)
    (only,) = plan_passes(height, width, *target, (4,), continuous=True)
    assert only.reaches(*target)
    assert 1 < only.scale <= 4
    assert FACTOR_PARTS % only.scale.denominator == 0
    if max(height, width) >= FACTOR_PARTS:
        assert only.scale == Fraction(parts, FACTOR_PARTS)


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    factors=st.tuples(st.floats(1, MAX_SCALE), st.floats(1, MAX_SCALE)),
    scale=st.integers(2, 8),
)
def test_every_continuous_chain_is_short_and_reaches_its_target(
    height: int, width: int, factors: tuple[float, float], scale: int
) -> None:
    tall, wide = math.ceil(height * factors[0]), math.ceil(width * factors[1])
    passes = plan_passes(height, width, tall, wide, (scale,), continuous=True)
    assert len(passes) == len(plan_passes(height, width, tall, wide, (scale,)))
    assert all(one.scale == scale for one in passes[:-1])
    last = passes[-1]
    assert (last.height, last.width) == tuple(n * scale ** (len(passes) - 1) for n in (height, width))
    assert 1 < last.scale <= scale
    assert last.reaches(tall, wide) or (last.height * last.scale >= tall and last.width * last.scale >= wide)


def test_a_continuous_chain_ends_with_what_is_left() -> None:
    assert plan_passes(10, 20, 75, 150, (4,), continuous=True) == [Pass(10, 20, 4), Pass(40, 80, Fraction(15, 8))]
    assert plan_passes(10, 20, 160, 320, (4,), continuous=True) == [Pass(10, 20, 4), Pass(40, 80, 4)]


@given(size=st.integers(1, 999), parts=st.integers(41, 160))
def test_whole_sizes_are_the_least_that_enlarge_to_whole_pixels(size: int, parts: int) -> None:
    scale = Fraction(parts, FACTOR_PARTS)
    assert whole_px(size, scale) == next(n for n in range(size, size + 40) if (n * scale).denominator == 1)
    assert whole_px(size, 3) == size


@pytest.mark.parametrize(
    ("factor", "chain"),
    [(1.5, (2,)), (2, (2,)), (2.01, (4,)), (3, (4,)), (4, (4,)), (5, (2, 4)), (8, (2, 4)), (9, (4, 4)), (16, (4, 4))],
)
def test_of_two_nets_the_fewest_and_cheapest_reach_the_target(factor: float, chain: tuple[int, ...]) -> None:
    assert cheapest_chain(factor, (2, 4)) == chain


def test_a_chain_of_two_scales_starts_its_last_net_at_its_share_of_the_target() -> None:
    assert plan_passes(10, 20, 80, 160, (2, 4)) == [Pass(10, 20, 2), Pass(20, 40, 4)]
    assert plan_passes(10, 20, 50, 100, (2, 4)) == [Pass(10, 20, 2), Pass(13, 25, 4)]
