"""Several processes with one job: what torchrun and `accelerate launch` start, each with a RANK of a WORLD_SIZE.

`Processes` share files among them; `TrainingProcesses` train one net together, on one machine or many, connected by
accelerate. `accelerate launch --cpu --num_processes 2` starts a single process unless it is given MPI; for several on
CPUs use `torchrun --nproc-per-node 2 -m dreamsr train …`, or `accelerate launch --multi_gpu … --device cpu`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from dreamsr.errors import DreamsrError, TrainingError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn
    from torch.distributed import ProcessGroup

    from dreamsr.core.device import Compute

Result = TypeVar("Result")
LONGEST_WAIT = timedelta(days=14)
"""One process may still work on its files long after the others are done."""
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""What lets the threads of libgomp, libomp and MKL sleep while they wait."""
_replaced: dict[str, str | None] = {}
"""What the user's environment held where `wait_passively` has set something."""


def wait_passively() -> None:
    """Let torch's threads sleep while they wait, unless the user has chosen: spinning, they take the cores of others.

    Read when torch is loaded, so this comes first. It costs a process alone some 4 %.
    """
    if not any(os.environ.get(name) for name in PASSIVE):
        _replaced.update({name: os.environ.get(name) for name in PASSIVE})
        os.environ.update(PASSIVE)


def users_environment() -> dict[str, str]:
    """The environment as the user had it, for programs of others: what we set for our own threads is taken back."""
    own = dict(os.environ) | _replaced
    return {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True)
class Processes:
    """This process among `world_size` processes that share work, numbered from 0."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_rank_0(self) -> bool:
        """Whether this process plans, writes the summary and decides the exit code."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, in every process."""
        if self.world_size == 1:
            return value
        from torch.distributed import broadcast_object_list

        box = [value]
        broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in rank 0; an empty list in the others."""
        if self.world_size == 1:
            return [value]
        from torch.distributed import gather_object

        box: list[Any] | None = [None] * self.world_size if self.is_rank_0 else None
        gather_object(value, box, dst=0)
        return box or []


@contextmanager
def joined() -> Iterator[Processes]:
    """This process's place, connected to the others while inside. Raises UsageError for a broken launch."""
    processes = _from_environment()
    if processes.world_size == 1:
        yield processes
        return
    import torch.distributed as dist

    # gloo: what is shared are names and reports, whatever device computes.
    dist.init_process_group("gloo", rank=processes.rank, world_size=processes.world_size, timeout=LONGEST_WAIT)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def _from_environment() -> Processes:
    rank, world_size = (_number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if world_size == 1:
        return Processes()
    if not 0 <= rank < world_size or not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"WORLD_SIZE is {world_size} and RANK is {rank}, but there is no MASTER_ADDR and MASTER_PORT to fit; "
            "start with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return Processes(rank, world_size)


def is_alone() -> bool:
    """Whether no other process works on the same job."""
    return _from_environment().world_size == 1


def is_first() -> bool:
    """Whether this process is alone, or the one of several that speaks for all."""
    return _from_environment().is_rank_0


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, "") or default)
    except ValueError:
        raise UsageError(f"the environment variable {name} is {os.environ[name]!r}, but it must be a number") from None


def local_device(device: str) -> str:
    """`device`, but for "auto" the GPU of this process's own, where there are several of each."""
    import torch

    local = _number("LOCAL_RANK", 0)
    if device == "auto" and _from_environment().world_size > 1 and torch.cuda.is_available():
        return f"cuda:{local % torch.cuda.device_count()}"
    return device


# --- training one net together ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingProcesses:
    """This process, the others that train the same net, and what it computes with.

    Accelerate brings the processes together, wraps the net for averaged gradients and counts accumulated batches. It
    neither moves tensors nor casts: `compute` does, in the same way as outside training. `control` carries flags and
    small reports between CPUs; None where this process is alone.
    """

    accelerator: Accelerator
    compute: Compute
    control: ProcessGroup | None

    @property
    def rank(self) -> int:
        """This process's number."""
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)

    @property
    def is_rank_0(self) -> bool:
        """Whether this process writes the files, validates and reports."""
        return self.rank == 0

    def together(self, work: Callable[[], Result]) -> Result:
        """Run `work` here, as every process runs its own; where it fails in one, all end.

        Rank 0 raises the error; the others leave quietly with its exit code. `work` must not wait for others.
        """
        if self.control is None:
            return work()
        try:
            result = work()
        except Exception as error:
            self._end_all(error)
        if self._any(False):
            self._end_all(None)
        return result

    def on_rank_0(self, work: Callable[[], Result]) -> Result | None:
        """Run `work` in rank 0 alone, while the others wait; None there. Ends all where it fails."""
        return self.together(work if self.is_rank_0 else lambda: None)

    def _any(self, here: bool) -> bool:
        import torch
        from torch import distributed as dist

        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
        return bool(flag)

    def _end_all(self, here: Exception | None) -> NoReturn:
        """Learn what went wrong in which process, and end this one."""
        if here is not None:
            self._any(True)
        errors = self.gather(None if here is None else _portable(here, self.rank))
        first = next(error for error in errors if error is not None)
        if here is not None and (self.is_rank_0 or os.environ.get("DREAMSR_TRACEBACK")):
            raise here
        self.fail(first)

    def fail(self, error: DreamsrError) -> NoReturn:
        """End every process (all must call this) with one line, rank 0's."""
        if self.is_rank_0:
            raise error
        raise SystemExit(error.exit_code)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in all of them."""
        if self.control is None:
            return [value]
        from torch import distributed as dist

        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value, group=self.control)
        return box

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, in every process."""
        if self.control is None:
            return value
        from torch import distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over all processes of each value; exactly the values where this process is alone."""
        if self.control is None:
            return list(values)
        import torch
        from torch import distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        means: list[float] = (sums / self.world_size).tolist()
        return means

    def averaging(self, module: nn.Module, *, some_unused: bool) -> nn.Module:
        """`module` with gradients averaged over the processes; the one returned before must not be used again.

        `some_unused`: parameters may have no part in the result, and then get no gradient.
        """
        if self.control is None:
            return module
        from accelerate import DistributedDataParallelKwargs

        self.accelerator.free_memory()  # a former wrapping would still listen to the same parameters
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=some_unused)
        wrapped: nn.Module = self.accelerator.prepare_model(module, device_placement=False)
        return wrapped


def _portable(error: Exception, rank: int) -> DreamsrError:
    """An error as it can be sent to rank 0 and shown there in one line."""
    if isinstance(error, DreamsrError):
        return error
    return TrainingError(f"internal error in process {rank} ({type(error).__name__}: {error})")


@contextmanager
def launched(
    device: str, precision: Literal["auto", "bf16", "fp32"], *, accumulate: int
) -> Iterator[TrainingProcesses]:
    """This process, connected to the others of its run while inside.

    Raises UsageError for a broken launch, DeviceError for a missing device.
    """
    from torch import distributed as dist

    from dreamsr.core.device import choose_compute

    is_alone()  # a broken launch would wait for the others for ever
    compute = choose_compute(_own_device(device), _own_precision(precision))
    already = dist.is_initialized()
    accelerator = _join(compute, accumulate)
    went_well = False
    try:
        several = accelerator.num_processes > 1
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if several else None
        yield TrainingProcesses(accelerator, compute, control)
        went_well = True
    finally:
        # NCCL ends only when all processes do; after an error in one the others may never come to that.
        if not already and dist.is_initialized() and (went_well or dist.get_backend() == "gloo"):
            accelerator.end_training()
        _forget()


def _join(compute: Compute, accumulate: int) -> Accelerator:
    from accelerate import Accelerator, InitProcessGroupKwargs

    return Accelerator(
        cpu=compute.device.type == "cpu",
        device_placement=False,
        mixed_precision="no",
        gradient_accumulation_steps=accumulate,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )


def _forget() -> None:
    """Accelerate keeps its device and its counters for the life of the process; the next run may want others."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _own_device(device: str) -> str:
    """The device of this process: what was asked for, or its own GPU where each has one."""
    import torch

    if device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):
        return "cpu"
    return local_device("auto" if device == "cuda" and torch.cuda.is_available() else device)


def _own_precision(precision: Literal["auto", "bf16", "fp32"]) -> Literal["auto", "bf16", "fp32"]:
    """The precision of the configuration; where it leaves the choice, that of `accelerate launch`."""
    chosen = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if chosen not in ("no", "bf16"):
        raise UsageError(f"`mixed_precision` is {chosen}, but dreamsr trains in bf16 or float32; choose bf16 or no")
    return "bf16" if precision == "auto" and chosen == "bf16" else precision
