"""What size a result gets, and by how many nets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamsr.core.sizes import MAX_SCALE, Pass, Size, check_target, plan_passes
from dreamsr.errors import UsageError


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
    assert len(plan_passes(100, 200, *target, 4)) == scales


def test_a_chain_of_two_ends_at_the_target() -> None:
    assert plan_passes(10, 20, 75, 150, 4) == [Pass(10, 20, 4), Pass(19, 38, 4)]


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    factor=st.floats(1.01, MAX_SCALE),
    scale=st.integers(1, 4),
)
def test_every_chain_reaches_its_target(height: int, width: int, factor: float, scale: int) -> None:
    tall, wide = Size(scale=factor).of(height, width)
    passes = plan_passes(height, width, tall, wide, scale)
    assert passes[0] == Pass(height, width, scale) or len(passes) > 1
    if scale > 1:
        assert passes[-1].height * scale >= min(tall, height * scale)
        assert len(passes) <= 5
    if len(passes) > 1:
        assert 0 <= passes[-1].height * scale - tall < scale
        assert 0 <= passes[-1].width * scale - wide < scale
