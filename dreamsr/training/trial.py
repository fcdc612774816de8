"""A few training steps on random pictures: how quick a configuration is here, with and without DREAM."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.dream import dream_loss
from dreamsr.core.model import build_denoiser, build_net
from dreamsr.training.config import TrainConfig


@dataclass(frozen=True)
class Trial:
    """What a few steps took. Seconds are medians of one batch, forward, backward and update."""

    parameters: int
    batch_size: int
    plain_seconds: float
    dream_seconds: float
    device: str
    dtype: str
    threads: int

    @property
    def ratio(self) -> float:
        """Time of a step with DREAM over one without; the paper's Table 5 has 1.08 to 1.38."""
        return self.dream_seconds / self.plain_seconds

    @property
    def plain_images_per_second(self) -> float:
        return self.batch_size / self.plain_seconds

    @property
    def dream_images_per_second(self) -> float:
        return self.batch_size / self.dream_seconds


def try_steps(config: TrainConfig, *, device: str = "auto", rounds: int = 7) -> Trial:
    """Time plain and DREAM steps in turn, `rounds` of each after one unmeasured of each. Raises DeviceError."""
    compute = choose_compute(device, config.precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = build_net(config.model)
    net = net.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    denoiser = build_denoiser(config.model, net, compute=compute)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(config.seed)
    side = config.crop_low_px
    low = torch.rand(config.batch_size, 3, side, side, generator=generator).to(compute.device) * 2 - 1
    side *= config.model.scale
    x0 = torch.rand(config.batch_size, 3, side, side, generator=generator).to(compute.device) * 2 - 1
    eps = torch.randn(x0.shape, generator=generator).to(compute.device)
    seconds: dict[float, list[float]] = {math.inf: [], 1.0: []}
    for _ in range(rounds + 1):
        for power, times in seconds.items():
            times.append(_seconds(denoiser, optimizer, low, x0, eps, power))
    plain, dream = (statistics.median(times[1:]) for times in seconds.values())
    parameters = sum(p.numel() for p in net.parameters())
    dtype = str(compute.dtype).removeprefix("torch.")
    threads = torch.get_num_threads() if compute.device.type == "cpu" else 1
    return Trial(parameters, config.batch_size, plain, dream, str(compute.device), dtype, threads)


def _seconds(
    denoiser: Denoiser, optimizer: torch.optim.Optimizer, low: Tensor, x0: Tensor, eps: Tensor, power: float
) -> float:
    """One step; on one CPU thread in its own time, so that busy neighbours do not count."""
    on_cpu = denoiser.compute.device.type == "cpu"
    clock = time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
    t = torch.full((len(x0),), max(1, denoiser.process.timesteps // 2), dtype=torch.float64)
    began = clock()
    loss = dream_loss(denoiser, x0, denoiser.condition(low).detached(), eps, t, power=power).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if denoiser.compute.device.type == "cuda":
        torch.cuda.synchronize(denoiser.compute.device)
    return clock() - began
