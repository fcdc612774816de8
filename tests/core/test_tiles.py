"""Tiles cover every pixel, agree with the whole, and fade without a trace."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamsr.core.tiles import (
    ALIGN_PX,
    OVERLAP_PX,
    Patch,
    Tile,
    Window,
    align_px,
    blend,
    fade,
    overlap_px,
    smallest_tile_px,
    tiles,
    windows,
)
from dreamsr.upscaling.settings import SMALLEST_TILE_PX
from dreamsr.upscaling.sizes import FACTOR_PARTS, whole_px

SMALLEST = 2 * OVERLAP_PX + ALIGN_PX


def test_the_smallest_tile_that_users_may_ask_for() -> None:
    assert SMALLEST_TILE_PX == SMALLEST


def part(whole: torch.Tensor, tile: Tile, scale: Fraction | int) -> torch.Tensor:
    """What an exact net would make of one tile of an image whose large version is `whole`."""
    tall, wide = tile.rows.enlarged(scale), tile.columns.enlarged(scale)
    return whole[:, tall.start : tall.stop, wide.start : wide.stop]


def put_together(patches: list[Patch], shape: torch.Size) -> torch.Tensor:
    """The image that the patches make; every pixel is of exactly one of them, and those to the right come later."""
    image, times = torch.zeros(shape), torch.zeros(shape[1:], dtype=torch.int64)
    for patch in patches:
        place = (slice(patch.top, patch.top + patch.pixels.shape[1]),)
        place += (slice(patch.left, patch.left + patch.pixels.shape[2]),)
        image[:, *place] = patch.pixels
        times[place] += 1
    assert (times == 1).all()  # no gap, no overlap
    assert [(patch.top, patch.left) for patch in patches] == sorted((patch.top, patch.left) for patch in patches)
    return image


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


def test_a_patch_leaves_as_soon_as_its_tile_has_come() -> None:
    computed: list[Tile] = []

    def results() -> Iterator[tuple[Tile, torch.Tensor]]:
        for tile in tiles(300, 157, scale=1, tile=SMALLEST):
            computed.append(tile)
            yield tile, torch.zeros(3, tile.rows.size, tile.columns.size)

    for number, patch in enumerate(blend(results(), 300, 157, scale=1), 1):
        assert len(computed) == number
        assert (patch.top, patch.left) == (computed[-1].rows.start, computed[-1].columns.start)
    assert len(computed) > 9


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

    places = tiles(height, width, scale=scale, tile=SMALLEST)
    patches = list(blend(((tile, part(whole, tile, scale)) for tile in places), height, width, scale=scale))
    torch.testing.assert_close(put_together(patches, whole.shape), whole, rtol=0, atol=1e-6)


# Factors between whole numbers


def test_whole_factors_keep_the_grid_of_the_nets() -> None:
    for scale in (1, 2, 4, Fraction(3)):
        assert (align_px(scale), overlap_px(align_px(scale))) == (ALIGN_PX, OVERLAP_PX)
        assert smallest_tile_px(align_px(scale)) == SMALLEST_TILE_PX


@pytest.mark.parametrize(("scale", "align"), [("3/2", 8), ("9/4", 8), ("9/8", 8), ("37/10", 40), ("149/40", 40)])
def test_grid_holds_both_the_net_s_and_whole_pixels(scale: str, align: int) -> None:
    assert align_px(Fraction(scale)) == align


@given(size=st.integers(1, 3000), more=st.integers(0, 400), parts=st.integers(41, 160))
@settings(max_examples=200, deadline=None)
def test_tiles_enlarge_to_whole_pixels_and_still_overlap(size: int, more: int, parts: int) -> None:
    scale = Fraction(parts, FACTOR_PARTS)
    align, size = align_px(scale), whole_px(size, scale)
    tile = smallest_tile_px(align) + more
    found = windows(size, tile, align=align)
    assert (found[0].start, found[-1].stop) == (0, size)
    for window in found:
        assert 0 < window.size <= tile
        assert window.start % align == 0
        assert window.enlarged(scale) == Window(scale * window.start, scale * window.stop)  # type: ignore[arg-type]
    for before, after in itertools.pairwise(found):
        assert before.stop - after.start == overlap_px(align) >= OVERLAP_PX


def test_tiles_too_small_for_the_factor_are_refused() -> None:
    with pytest.raises(ValueError, match="use 120 or more"):
        windows(500, 119, align=40)


@pytest.mark.parametrize("scale", [Fraction(3, 2), Fraction(37, 10), Fraction(149, 40)], ids=str)
@pytest.mark.parametrize("size", [40, 120, 160, 280, 1000])
def test_weights_sum_to_one_between_whole_factors(size: int, scale: Fraction) -> None:
    total = torch.zeros(int(scale * size))
    for window in windows(size, 120, align=align_px(scale)):
        place = window.enlarged(scale)
        total[place.start : place.stop] += fade(window, size, scale)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (10, 300), (300, 10), (130, 290)])
def test_identity_gives_the_untiled_result_between_whole_factors(height: int, width: int) -> None:
    scale = Fraction(37, 10)
    size = (int(scale * height), int(scale * width))
    whole = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))

    places = tiles(height, width, scale=scale, tile=120)
    patches = list(blend(((tile, part(whole, tile, scale)) for tile in places), height, width, scale=scale))
    torch.testing.assert_close(put_together(patches, whole.shape), whole, rtol=0, atol=1e-6)
