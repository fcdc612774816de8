"""Tiles cover every pixel, agree with the whole, and fade without a trace."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamsr.core.tiles import ALIGN_PX, OVERLAP_PX, Window, blend, fade, windows
from dreamsr.tasks.settings import SMALLEST_TILE_PX

SMALLEST = 2 * OVERLAP_PX + ALIGN_PX


def test_the_smallest_tile_that_users_may_ask_for() -> None:
    assert SMALLEST_TILE_PX == SMALLEST


@given(size=st.integers(1, 20_000), tile=st.integers(SMALLEST, 600))
@settings(max_examples=300, deadline=None)
def test_windows_cover_everything_and_overlap(size: int, tile: int) -> None:
    found = windows(size, tile)
    assert found[0].start == 0
    assert found[-1].stop == size
    for window in found:
        assert 0 < window.size <= tile
        assert window.start % ALIGN_PX == 0
    for before, after in itertools.pairwise(found):
        assert before.stop - after.start == OVERLAP_PX
        assert after.stop > before.stop


def test_tiles_too_small_to_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot overlap"):
        windows(500, 2 * OVERLAP_PX)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 17, 72, 73, 105, 137, 300, 1001])
def test_weights_sum_to_one(size: int, scale: int) -> None:
    total = torch.zeros(scale * size)
    for window in windows(size, SMALLEST):
        total[scale * window.start : scale * window.stop] += fade(window, size, scale)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (200, 1), (73, 150), (72, 72), (301, 157)])
@pytest.mark.parametrize("scale", [1, 3])
def test_identity_gives_the_untiled_result(height: int, width: int, scale: int) -> None:
    whole = torch.rand(3, scale * height, scale * width, generator=torch.Generator().manual_seed(0))

    def compute(rows: Window, columns: Window) -> torch.Tensor:
        return whole[:, scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop]

    strips = list(blend(height, width, scale=scale, tile=SMALLEST, compute=compute))
    assert [strip.top for strip in strips] == [
        sum(s.pixels.shape[1] for s in strips[:i]) for i in range(len(strips))
    ]  # no gap, no overlap
    torch.testing.assert_close(torch.cat([s.pixels for s in strips], dim=1), whole, rtol=0, atol=1e-6)
