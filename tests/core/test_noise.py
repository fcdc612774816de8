"""Noise belongs to a place, not to the tile, batch or order that asks for it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamsr.core.noise import NoiseField, seed_of

PLACES = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200), st.integers(1, 200))


@given(place=PLACES, step=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_any_window_is_part_of_one_canvas(place: tuple[int, int, int, int], step: int) -> None:
    field = NoiseField(5)
    top, left, height, width = place
    canvas = NoiseField(5).window(step, 0, 0, 500, 500)
    assert torch.equal(field.window(step, *place), canvas[:, top : top + height, left : left + width])


def test_steps_and_seeds_differ() -> None:
    fields = [NoiseField(0).window(0, 0, 0, 64, 64), NoiseField(0).window(1, 0, 0, 64, 64)]
    fields.append(NoiseField(1).window(0, 0, 0, 64, 64))
    for i, one in enumerate(fields):
        for other in fields[i + 1 :]:
            assert abs(float((one * other).mean())) < 0.05


def test_noise_is_standard_normal() -> None:
    values = NoiseField(3).window(0, 1000, 70, 400, 400)
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
    assert abs(float((values[:, :, 1:] * values[:, :, :-1]).mean())) < 0.01  # neighbours, also across blocks


def test_seeds_of_neighbouring_tuples_are_unrelated() -> None:
    seeds = {seed_of(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert all(0 <= seed < 2**63 for seed in seeds)
