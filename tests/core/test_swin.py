from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from dreamsr.core.backbones.swin import SwinBlock, WindowAttention, cut
from tests.core.oracles import noises


def attention_of(*, window: int, shifted: bool, width: int = 6, heads: int = 2) -> WindowAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = WindowAttention(width, heads=heads, window=window, shifted=shifted).double().requires_grad_(False)
        nn.init.normal_(net.bias)
    return net


def pixels(height: int, width: int, *, channels: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(2, height, width, channels, generator=generator, dtype=torch.float64)


def window_of(place: int, size: int, window: int, *, shifted: bool) -> int:
    """The number of the window in which a pixel lies: shifted ones begin half a window in."""
    if size <= window:
        return 0
    return (place - window // 2) // window if shifted else place // window


def brute_force(net: WindowAttention, x: Tensor) -> Tensor:
    """Every pixel against every other, each pair let through only where both lie in one window."""
    height, width, channels = x.shape[1:]
    places = list(product(range(height), range(width)))
    mask = torch.full((net.heads, len(places), len(places)), -math.inf, dtype=x.dtype)
    for (i, (row, column)), (j, (other_row, other_column)) in product(enumerate(places), repeat=2):
        homes = [
            tuple(window_of(place, size, net.window, shifted=net.shifted) for place, size in ((r, height), (c, width)))
            for r, c in ((row, column), (other_row, other_column))
        ]
        if homes[0] == homes[1]:
            middle = net.window - 1
            mask[:, i, j] = net.bias[:, middle + row - other_row, middle + column - other_column]
    flat = x.flatten(1, 2)
    parts = net.query_key_value(flat).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (net.heads, -1)).transpose(1, 2) for part in parts)  # [B,heads,h*w,d]
    scores = query @ key.mT / math.sqrt(channels / net.heads) + mask
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    out: Tensor = net.out(mixed)
    return out.unflatten(1, (height, width))


GRIDS = [(1, 1), (1, 7), (3, 3), (4, 2), (5, 8), (6, 9)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("shifted", [False, True])
def test_window_attention_is_masked_attention_between_all_pixels(
    grid: tuple[int, int], window: int, *, shifted: bool
) -> None:
    net, x = attention_of(window=window, shifted=shifted), pixels(*grid)
    torch.testing.assert_close(net(x), brute_force(net, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shifted", "first", "last"), [(False, 4, 4), (True, 2, 2)])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_corner_is_seen_in_its_own_window_and_not_across_the_border(
    corner: tuple[int, int], first: int, last: int, *, shifted: bool
) -> None:
    net, x = attention_of(window=4, shifted=shifted), pixels(8, 12)
    moved = x.clone()
    moved[:, corner[0], corner[1]] += 1
    changed = (net(moved) != net(x)).any(dim=3)
    expected = torch.zeros_like(changed)
    rows, columns = (slice(None, first) if side == 0 else slice(-last, None) for side in corner)
    expected[:, rows, columns] = True
    assert torch.equal(changed, expected)


def test_swin_block_reaches_no_further_than_its_windows() -> None:
    """Plain windows of 4, then shifted ones: from the last of 24 px to its window 20..23, then 18..21 and 22..23."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = SwinBlock(4, width=6, depth=2, heads=2, window=4).double().requires_grad_(False)
        nn.init.normal_(block.leave.weight)
    x = noises(1, size=(1, 24))[:, [0, 1, 2, 0]]
    moved = x.clone()
    moved[..., -1] += 1
    changed = (block(moved) != block(x)).any(dim=1).squeeze()
    assert changed.tolist() == [False] * 18 + [True] * 6


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_padding_takes_no_part_in_the_average(grid: tuple[int, int], *, shifted: bool) -> None:
    """Where every real pixel has the value 1, so has every average of real pixels."""
    net = attention_of(window=4, shifted=shifted)
    nn.init.zeros_(net.query_key_value.weight[12:])
    nn.init.ones_(net.query_key_value.bias[12:])
    nn.init.eye_(net.out.weight)
    nn.init.zeros_(net.out.bias)
    out = net(pixels(*grid))
    torch.testing.assert_close(out, torch.ones_like(out), rtol=0, atol=1e-14)


def test_relative_bias_is_that_of_the_offset_between_query_and_key() -> None:
    net = WindowAttention(2, heads=1, window=2, shifted=False).requires_grad_(False)
    net.bias.copy_(torch.arange(9.0).view(1, 3, 3))
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert net.relative_bias(2, 2)[0].tolist() == expected
    assert net.relative_bias(1, 2)[0].tolist() == [[4, 3], [5, 4]]
    assert net.relative_bias(2, 1)[0].tolist() == [[4, 1], [7, 4]]


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_cover_the_axis_and_none_is_all_padding(window: int, *, shifted: bool) -> None:
    """A window of nothing but padding would give nan."""
    for size in range(1, 20):
        axis = cut(size, window, shifted=shifted)
        assert axis.before + size + axis.after == axis.side * axis.count
        assert 0 <= axis.before < axis.side
        assert 0 <= axis.after < axis.side


def test_fresh_block_is_the_identity() -> None:
    x = noises(1, size=(5, 7))
    assert torch.equal(SwinBlock(3, width=6, depth=2, heads=2, window=4).double()(x), x)
