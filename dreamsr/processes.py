"""Several processes with one job: what torchrun and `accelerate launch` start, each with a RANK of a WORLD_SIZE."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dreamsr.errors import UsageError

LONGEST_WAIT = timedelta(days=14)
"""One process may still work on its files long after the others are done."""


@dataclass(frozen=True)
class Ranks:
    """This process among `world` processes, numbered from 0, the one that plans and reports."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process plans, writes the summary and decides the exit code."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The leader's value, in every process."""
        if self.world == 1:
            return value
        from torch.distributed import broadcast_object_list

        box = [value]
        broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the leader; an empty list in the others."""
        if self.world == 1:
            return [value]
        from torch.distributed import gather_object

        box: list[Any] | None = [None] * self.world if self.leads else None
        gather_object(value, box, dst=0)
        return box or []


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place, connected to the others while inside. Raises UsageError for a broken launch."""
    ranks = _from_environment()
    if ranks.world == 1:
        yield ranks
        return
    import torch.distributed as dist

    # gloo: what is shared are names and reports, whatever device computes.
    dist.init_process_group("gloo", rank=ranks.rank, world_size=ranks.world, timeout=LONGEST_WAIT)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _from_environment() -> Ranks:
    rank, world = (_number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if world == 1:
        return Ranks()
    if not 0 <= rank < world or not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"WORLD_SIZE is {world} and RANK is {rank}, but there is no MASTER_ADDR and MASTER_PORT to fit; "
            "start with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return Ranks(rank, world)


def is_alone() -> bool:
    """Whether no other process works on the same job."""
    return _from_environment().world == 1


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, "") or default)
    except ValueError:
        raise UsageError(f"the environment variable {name} is {os.environ[name]!r}, but it must be a number") from None


def local_device(device: str) -> str:
    """`device`, but for "auto" the GPU of this process's own, where there are several of each."""
    import torch

    local = _number("LOCAL_RANK", 0)
    if device == "auto" and _from_environment().world > 1 and torch.cuda.is_available():
        return f"cuda:{local % torch.cuda.device_count()}"
    return device
