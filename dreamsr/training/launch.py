"""One training run in one process or many, on one machine or many; accelerate connects them.

Both protocols of RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR work: torchrun's and that of `accelerate launch`.
`accelerate launch --cpu --num_processes 2` starts a single process unless it is given MPI; for several processes on
CPUs use `torchrun --nproc-per-node 2 -m dreamsr train …`, or `accelerate launch --multi_gpu … --device cpu`.

Accelerate brings the processes together, wraps the net for averaged gradients and counts accumulated batches. It
neither moves tensors nor casts: `Compute` does, in the same way as outside training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import torch
from torch import distributed as dist
from torch import nn

from dreamsr.core.device import Compute, choose_compute
from dreamsr.errors import DreamsrError, TrainingError, UsageError
from dreamsr.processes import LONGEST_WAIT, is_alone, local_device

if TYPE_CHECKING:
    from accelerate import Accelerator

Result = TypeVar("Result")


@dataclass(frozen=True)
class Crew:
    """This process, the others of the same run, and what it computes with."""

    accelerator: Accelerator
    compute: Compute
    control: dist.ProcessGroup | None
    """Carries flags and small reports between CPUs; None where this process is alone."""

    @property
    def rank(self) -> int:
        """This process's number, 0 for the leader."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files, validates and reports."""
        return self.rank == 0

    def together(self, work: Callable[[], Result]) -> Result:
        """Run `work` here, as every process runs its own; where it fails in one, all end.

        The leader raises the error; the others leave quietly with its exit code. `work` must not wait for others.
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

    def lead(self, work: Callable[[], Result]) -> Result | None:
        """Run `work` in the leader alone, while the others wait; None there. Ends all where it fails."""
        return self.together(work if self.leads else lambda: None)

    def _any(self, here: bool) -> bool:
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
        return bool(flag)

    def _end_all(self, here: Exception | None) -> NoReturn:
        """Hear what went wrong in which process, and end this one."""
        if here is not None:
            self._any(True)
        told = self.gather(None if here is None else _portable(here, self.rank))
        error = next(error for error in told if error is not None)
        if here is not None and (self.leads or os.environ.get("DREAMSR_TRACEBACK")):
            raise here
        self.fail(error)

    def fail(self, error: DreamsrError) -> NoReturn:
        """End every process (all must call this) with one line, the leader's."""
        if self.leads:
            raise error
        raise SystemExit(error.exit_code)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in all of them."""
        if self.control is None:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value, group=self.control)
        return box

    def share(self, value: Any) -> Any:
        """The leader's value, in every process."""
        if self.control is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over all processes of each value; exactly the values where this process is alone."""
        if self.control is None:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        means: list[float] = (sums / self.world).tolist()
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
    """An error as it can be sent to the leader and told there in one line."""
    if isinstance(error, DreamsrError):
        return error
    return TrainingError(f"internal error in process {rank} ({type(error).__name__}: {error})")


@contextmanager
def launched(device: str, precision: Literal["auto", "bf16", "fp32"], *, accumulate: int) -> Iterator[Crew]:
    """This process, connected to the others of its run while inside.

    Raises UsageError for a broken launch, DeviceError for a missing device.
    """
    is_alone()  # a broken launch would wait for the others for ever
    compute = choose_compute(_own_device(device), _own_precision(precision))
    already = dist.is_initialized()
    accelerator = _join(compute, accumulate)
    went_well = False
    try:
        several = accelerator.num_processes > 1
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if several else None
        yield Crew(accelerator, compute, control)
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
    if device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):
        return "cpu"
    return local_device("auto" if device == "cuda" and torch.cuda.is_available() else device)


def _own_precision(precision: Literal["auto", "bf16", "fp32"]) -> Literal["auto", "bf16", "fp32"]:
    """The precision of the configuration; where it leaves the choice, that of `accelerate launch`."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if told not in ("no", "bf16"):
        raise UsageError(f"--mixed_precision is {told}, but dreamsr trains in bf16 or float32; choose bf16 or no")
    return "bf16" if precision == "auto" and told == "bf16" else precision
