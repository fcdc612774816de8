"""Tile sizes follow the memory that is built in, also inside containers, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamsr.errors import DeviceError
from dreamsr.measure import memory

CPU = torch.device("cpu")


def test_free_memory_is_plausible() -> None:
    assert 10_000_000 < memory.free_bytes(CPU) <= memory.total_bytes()


@pytest.mark.parametrize(("total", "expected"), [(64e9, 288), (8e9, 288), (2e9, 192), (5e8, 128), (1e8, 96), (0, 96)])
def test_tiles_shrink_with_the_memory_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, total: float, expected: int
) -> None:
    monkeypatch.setattr(memory, "total_bytes", lambda _: int(total))
    for free in (total, 0):  # whatever else runs
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: int(free))
        assert memory.automatic_tile_px(CPU, scale=4) == expected


def test_a_container_limits_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", ((limit, used), (tmp_path / "none", tmp_path / "none")))
    used.write_text("40000000\n")
    limit.write_text("100000000\n")
    assert memory.free_bytes(CPU) == 60_000_000
    assert memory.total_bytes(CPU) == 100_000_000
    limit.write_text("max\n")
    assert memory.free_bytes(CPU) > 60_000_000


def test_results_that_cannot_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000_000)
    memory.require_room(10_000, 10_000, 3)
    with pytest.raises(DeviceError, match=r"needs about 4\.8 GB and 1\.0 GB are free"):
        memory.require_room(20_000, 20_000, 4)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("sizes differ"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert memory.is_out_of_memory(error) is expected
