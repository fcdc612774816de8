"""What every training step is fed: crops, times and noise, each a pure function of the seed and a number.

Optimizer step `step` takes the crops with the numbers

    ((step * accumulate + a) * world + rank) * batch_size + i

so the same crops meet in a step however it is divided into batches and processes, and a resumed run goes on where it
stopped.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dreamsr.core import resize
from dreamsr.core.noise import seed_of
from dreamsr.data.sources import CropPairs
from dreamsr.errors import DreamsrError
from dreamsr.training.config import TrainConfig
from dreamsr.training.stopping import ignore_signals


class Batch(NamedTuple):
    """low [B,3,p,p] and x0 [B,3,n,n] in [-1,1], eps like x0, t: B times in (0, T].

    Times are plain numbers: they stay on the CPU in float64, whatever moves the tensors.
    """

    low: Tensor
    x0: Tensor
    eps: Tensor
    t: tuple[float, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        low, x0, eps = (part.to(device, non_blocking=True) for part in self[:3])
        return Batch(low, x0, eps, self.t)


def step_numbers(config: TrainConfig, step: int, world: int) -> range:
    """The numbers of all crops of one optimizer step, over all processes."""
    count = config.accumulate * world * config.batch_size
    return range(step * count, (step + 1) * count)


def draws(config: TrainConfig, number: int, shape: tuple[int, ...]) -> tuple[Tensor, float]:
    """(eps of `shape`, t) of crop `number`: t is whole in 1..T, or with continuous time anywhere in (0, T].

    SR3 draws its noise level between two neighbouring whole times (Chen et al. 2021, WaveGrad): whole minus U[0,1).
    """
    generator = torch.Generator().manual_seed(seed_of(config.seed, number, 1))
    timesteps = config.model.process.timesteps
    t = float(torch.randint(1, timesteps + 1, (1,), generator=generator))
    if config.continuous_time:
        t -= float(torch.rand(1, generator=generator, dtype=torch.float64))
    return torch.randn(shape, generator=generator), t


def large_side_px(config: TrainConfig, step: int) -> int:
    """Side of x0 in optimizer step `step`.

    A continuous net learns all factors in (1, scale]: one per step, evenly drawn (Gao et al. 2023, IDM).
    """
    small, largest = config.crop_low_px, config.model.scale * config.crop_low_px
    if not config.model.architecture.continuous:
        return largest
    generator = torch.Generator().manual_seed(seed_of(config.seed, step, 2))
    share = float(torch.rand(1, generator=generator, dtype=torch.float64))
    return max(small + 1, round(small + share * (largest - small)))


class Batches(Dataset[Batch | DreamsrError]):
    """This process's batches by index, step * accumulate + a. Pure and picklable, for any number of workers.

    What cannot be read comes back as the error itself, which a worker could not raise in one line.
    """

    def __init__(self, pairs: CropPairs, config: TrainConfig, *, rank: int, world: int) -> None:
        self.pairs = pairs
        self.config = config
        self.rank = rank
        self.world = world

    def __getitem__(self, index: int) -> Batch | DreamsrError:
        size = self.config.batch_size
        first = (index * self.world + self.rank) * size
        side = large_side_px(self.config, index // self.config.accumulate)
        try:
            return _stacked([self._one(number, side) for number in range(first, first + size)])
        except DreamsrError as error:
            return error

    def _one(self, number: int, side: int) -> tuple[Tensor, Tensor, Tensor, float]:
        low, x0 = self.pairs[number]
        if x0.shape[-1] != side:
            x0 = resize.as_stored(resize.resize(x0, side, side))  # [3,side,side]
        eps, t = draws(self.config, number, tuple(x0.shape))
        return low, x0, eps, t


def _stacked(samples: list[tuple[Tensor, Tensor, Tensor, float]]) -> Batch:
    low, x0, eps, t = zip(*samples, strict=True)
    return Batch(torch.stack(low), torch.stack(x0), torch.stack(eps), t)


class Loader:
    """The batches with indices first..last-1, in order, made ahead by `workers` processes; 0 makes them here."""

    def __init__(self, batches: Batches, *, first: int, last: int, workers: int, pin: bool) -> None:
        loader: DataLoader[Batch | DreamsrError] = DataLoader(
            batches,
            sampler=range(first, last),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            pin_memory=pin,
            generator=torch.Generator(),  # or the loader would draw from the global one
        )
        self._iterator = iter(loader)

    def take(self) -> Batch:
        """The next batch. Raises DataError for a picture that cannot be read."""
        batch: Batch | DreamsrError = next(self._iterator)
        if isinstance(batch, DreamsrError):
            raise batch
        return batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Workers ignore signals, so an iterator that a traceback keeps alive would leave them running.
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _as_it_is(batch: Any) -> Any:
    return batch
