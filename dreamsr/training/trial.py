"""A few training steps on random pictures: how quick a configuration is here, with DREAM, without, and finishing."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import Compute, choose_compute
from dreamsr.core.dream import dream_loss
from dreamsr.training.config import TrainConfig
from dreamsr.training.finishing import Losses
from dreamsr.training.loader import Batch
from dreamsr.training.state import Run, begin
from dreamsr.training.step import losses_of


@dataclass(frozen=True)
class Trial:
    """What a few steps took. Seconds are medians of one batch, forward, backward and update.

    `finish_seconds` is the mean over rollouts as the stage draws them; None for a run without one.
    """

    parameters: int
    batch_size: int
    plain_seconds: float
    dream_seconds: float
    device: str
    dtype: str
    threads: int
    finish_seconds: float | None = None

    @property
    def ratio(self) -> float:
        """Time of a step with DREAM over one without; the paper's Table 5 has 1.08 to 1.38."""
        return self.dream_seconds / self.plain_seconds


def try_steps(config: TrainConfig, *, device: str = "auto", rounds: int = 7) -> Trial:
    """Time plain and DREAM steps in turn, `rounds` of each after one unmeasured of each; then as many of finishing.

    Raises DeviceError; UsageError where finishing lacks what it needs.
    """
    compute = choose_compute(device, config.precision)
    run = begin(replace(config, base_steps=0), compute, None)
    batch = _random_batch(config, compute)
    net = run.denoiser.net
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    seconds: dict[float, list[float]] = {math.inf: [], 1.0: []}
    for _ in range(rounds + 1):
        for power, times in seconds.items():
            times.append(_seconds(partial(_loss, run.denoiser, batch, power), [optimizer], compute))
    plain, dream = (statistics.median(times[1:]) for times in seconds.values())
    parameters = sum(p.numel() for p in net.parameters())
    dtype = str(compute.dtype).removeprefix("torch.")
    threads = torch.get_num_threads() if compute.device.type == "cpu" else 1
    finish = _finish_seconds(run, config, batch, rounds) if config.finish.steps > 0 else None
    return Trial(parameters, config.batch_size, plain, dream, str(compute.device), dtype, threads, finish)


def _random_batch(config: TrainConfig, compute: Compute) -> Batch:
    """Crops without meaning, at half of T."""
    generator = torch.Generator().manual_seed(config.seed)
    small, large = config.crop_low_px, config.crop_low_px * config.model.scale
    low, x0 = (torch.rand(config.batch_size, 3, side, side, generator=generator) * 2 - 1 for side in (small, large))
    eps = torch.randn(x0.shape, generator=generator)
    middle = float(max(1, config.model.process.timesteps // 2))
    return Batch(low, x0, eps, (middle,) * config.batch_size).to(compute.device)


def _loss(denoiser: Denoiser, batch: Batch, power: float) -> Tensor:
    t = torch.tensor(batch.t, dtype=torch.float64)
    condition = denoiser.condition(batch.low).detached()
    return dream_loss(denoiser, batch.x0, condition, batch.eps, t, power=power).mean()


def _finish_loss(losses: nn.Module, batch: Batch, step: int) -> Tensor:
    found: Losses = losses(batch, step)
    return found.minimised


def _finish_seconds(run: Run, config: TrainConfig, batch: Batch, rounds: int) -> float:
    """The mean over `rounds` steps as the stage draws them, after an unmeasured one."""
    losses = losses_of(run, config, "finish")
    optimizers = [run.optimizer]
    if run.finish is not None and run.finish.optimizer is not None:
        optimizers.append(run.finish.optimizer)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = 0.0
    first = config.finish_start
    times = [
        _seconds(partial(_finish_loss, losses, batch, step), optimizers, run.denoiser.compute)
        for step in range(first, first + rounds + 1)
    ]
    return statistics.fmean(times[1:])


def _seconds(loss: Callable[[], Tensor], optimizers: Sequence[torch.optim.Optimizer], compute: Compute) -> float:
    """One step; on one CPU thread in its own time, so that busy neighbours do not count."""
    on_cpu = compute.device.type == "cpu"
    clock = time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    whole = loss()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    whole.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
    return clock() - began
