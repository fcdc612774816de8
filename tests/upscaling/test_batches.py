"""Tiles together and work done ahead, as for a GPU, here on the CPU: the same picture, told of as often."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import Compute, available_devices
from dreamsr.core.model import build_denoiser
from dreamsr.errors import DeviceError
from dreamsr.measure.memory import automatic_batch_px
from dreamsr.upscaling import tiled
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.tiled import TiledRun, ahead
from dreamsr.upscaling.upscaler import Upscaler

TILE_PX = 80
CPU = torch.device("cpu")


class BesideTheCpu(Compute):
    """The CPU, taken for a device beside it."""

    is_beside_the_cpu = True


def picture() -> np.ndarray:
    """In 4 x 4 tiles of one size, of which the first is flat."""
    pixels = np.random.default_rng(3).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    pixels[: TILE_PX + 8, : TILE_PX + 8] = 90
    return pixels


def run_of(upscaler: Upscaler, compute: Compute, batch_px: int, told: list[None], **settings: float) -> TiledRun:
    denoiser = build_denoiser(upscaler.weights.config, upscaler.weights.net, compute=compute)
    return TiledRun(denoiser, 4, Settings(**settings), 5, 2, TILE_PX, lambda: told.append(None), batch_px)  # type: ignore[arg-type]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tiles the net saw together, each time."""
    counts: list[int] = []
    inner = TiledRun._tile

    def counted(self: TiledRun, denoiser: Denoiser, low: Tensor, *rest: object) -> Tensor:
        counts.append(len(low))
        return inner(self, denoiser, low, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TiledRun, "_tile", counted)
    return counts


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Compute, BesideTheCpu])
def test_batches_give_what_single_tiles_do(
    tiny_upscaler: Upscaler, kind: type[Compute], stochasticity: float, seen: list[int]
) -> None:
    compute, told, expected_told = kind(CPU, torch.float32, "a test"), [], []
    plain = Compute(CPU, torch.float32, "a test")
    expected = run_of(tiny_upscaler, plain, 0, expected_told, stochasticity=stochasticity)(picture())
    single = len(seen)
    assert seen == [1] * single
    assert single < 16  # the flat one is not seen
    found = run_of(tiny_upscaler, compute, 3 * TILE_PX**2, told, stochasticity=stochasticity)(picture())
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(told) == len(expected_told) == 16 * 3
    assert sum(seen[single:]) == single
    assert max(seen[single:]) == 3


def test_single_tiles_made_ahead_are_the_same_bytes(tiny_upscaler: Upscaler) -> None:
    results = [
        run_of(tiny_upscaler, kind(CPU, torch.float32, "a test"), 0, [])(picture()) for kind in (Compute, BesideTheCpu)
    ]
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("kind", [Compute, BesideTheCpu])
def test_where_memory_is_short_tiles_are_seen_one_by_one(
    tiny_upscaler: Upscaler, kind: type[Compute], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = kind(CPU, torch.float32, "a test")
    expected = run_of(tiny_upscaler, compute, 0, [])(picture())
    inner, shapes = TiledRun._tile, []

    def scarce(self: TiledRun, denoiser: Denoiser, low: Tensor, *rest: object) -> Tensor:
        shapes.append(tuple(low.shape))
        if len(low) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return inner(self, denoiser, low, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TiledRun, "_tile", scarce)
    found = run_of(tiny_upscaler, compute, 4 * TILE_PX**2, [])(picture())
    assert (found == expected).all()
    assert {shape[2:] for shape in shapes} == {shapes[0][2:]}  # no tile became smaller


def test_what_is_no_number_in_a_batch_is_never_returned(
    tiny_upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Tensor:
        raise tiled.NotFiniteError

    monkeypatch.setattr(TiledRun, "_tile", never)
    compute = BesideTheCpu(CPU, torch.float32, "a test")
    with pytest.raises(DeviceError, match="not numbers"):
        run_of(tiny_upscaler, compute, 4 * TILE_PX**2, [])(picture())


def test_half_precision_is_near_float32(tiny_upscaler: Upscaler) -> None:
    full, half = (
        run_of(tiny_upscaler, Compute(CPU, dtype, "a test"), 0, [])(picture()[-24:, -24:]).astype(int)
        for dtype in (torch.float32, torch.float16)
    )
    assert 0 < np.abs(full - half).mean() < 1


def test_one_item_is_made_while_another_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    found = []
    for number in ahead(items()):
        assert made[min(number + 1, 2)].wait(10)
        found.append(number)
    assert found == [0, 1, 2]


def test_an_error_ahead_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise MemoryError("no room")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(MemoryError, match="no room"):
        next(coming)
    assert list(ahead([])) == []


def test_the_cpu_sees_one_tile_at_a_time() -> None:
    assert automatic_batch_px(CPU, scale=4) == 0
    assert automatic_batch_px(torch.device("mps"), scale=4) > automatic_batch_px(torch.device("mps"), scale=8) > 0


@pytest.mark.gpu
@pytest.mark.skipif(available_devices()[0] == "cpu", reason="no CUDA or MPS device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_gives_what_the_cpu_does(tiny_upscaler: Upscaler, dtype: torch.dtype) -> None:
    expected = run_of(tiny_upscaler, Compute(CPU, torch.float32, "a test"), 0, [])(picture()).astype(int)
    device = torch.device(available_devices()[0])
    run = run_of(tiny_upscaler, Compute(device, dtype, "a test"), 4 * TILE_PX**2, [])
    denoiser = build_denoiser(
        tiny_upscaler.weights.config,
        copy.deepcopy(tiny_upscaler.weights.net).to(device),
        compute=run.denoiser.compute,
    )
    found = replace(run, denoiser=denoiser)(picture())
    assert np.abs(found - expected).mean() < 1
