"""One optimizer step: the loss, the learning rate, and the update from the batches of all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from dreamsr.config import TrainConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.dream import dream_loss
from dreamsr.core.noise import seed_of
from dreamsr.tasks.launch import Crew
from dreamsr.tasks.train_data import Batch, Loader
from dreamsr.tasks.train_state import Run


class StepLoss(nn.Module):
    """(whole loss, loss of the base y) of one batch, both scalars.

    A module, and the whole loss in one `forward`, so that what averages gradients over processes sees exactly one
    forward per backward; DREAM's first pass inside it runs on the bare net.
    """

    def __init__(self, denoiser: Denoiser, config: TrainConfig) -> None:
        super().__init__()
        self.net = denoiser.net
        self.denoiser = denoiser
        self.config = config

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The base's loss is its mean absolute error, 0 for nets that predict none; before `base_steps` it is all."""
        config, x0 = self.config, batch.x0
        factor = Fraction(x0.shape[-1], batch.low.shape[-1]) if config.model.continuous else None
        condition = self.denoiser.condition(batch.low, factor)
        base = (condition.y - x0).abs().mean() if self.net.predicts_base else x0.new_zeros(())
        if step < config.base_steps:
            return base, base.detach()
        power = config.dream.power if step >= config.dream.start else math.inf
        t = torch.tensor(batch.t, dtype=torch.float64)
        error = dream_loss(self.denoiser, x0, condition.detached(), batch.eps, t, power=power, loss=config.loss).mean()
        return base + error, base.detach()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Warm-up, then a cosine or a constant; once for the base phase and once for the rest."""
    first, last = (0, config.base_steps) if step < config.base_steps else (config.base_steps, config.max_steps)
    warm = min(1.0, (step - first + 1) / max(1, config.warmup_steps))
    if config.rate_schedule == "constant":
        return config.learning_rate * warm
    done = (step - first) / max(1, last - first)
    return config.learning_rate * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step gave: means over all its crops, in all processes.

    finite: whether loss and gradient were, without which no update is made. stop: whether any process was asked to
    stop.
    """

    loss: float
    base_loss: float
    learning_rate: float
    finite: bool
    stop: bool


class Stepper:
    """Takes optimizer steps with `run`, fed by `loader`, together with the other processes of `crew`."""

    def __init__(self, run: Run, config: TrainConfig, crew: Crew, loader: Loader) -> None:
        self.run = run
        self.config = config
        self.crew = crew
        self.loader = loader
        self._plain = StepLoss(run.denoiser, config)
        self._averaged: nn.Module = self._plain
        self._wrap()

    def _wrap(self) -> None:
        """In the base phase a part of the net is not used, which averaging must know and pays for."""
        del self._averaged
        self._averaged = self.crew.averaging(self._plain, some_unused=self.run.step < self.config.base_steps)

    def advance(self, stop: Callable[[], bool]) -> StepResult:
        """One optimizer step, or none where loss or gradient is not finite; `run` counts either.

        Raises DataError for pictures that cannot be read.
        """
        run, config = self.run, self.config
        if run.step == config.base_steps:
            self._wrap()
        rate = learning_rate(config, run.step)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(run.step * config.accumulate + a) for a in range(config.accumulate)]
        norm = float(nn.utils.clip_grad_norm_(run.denoiser.net.parameters(), config.clip_norm))
        whole, base = (sum(values) / config.accumulate for values in zip(*losses, strict=True))
        whole, base, norm, asked = self.crew.mean([whole, base, norm, float(stop())])
        finite = math.isfinite(whole) and math.isfinite(norm)
        self._update(finite)
        return StepResult(whole, base, rate, finite, asked > 0)

    def _backward(self, index: int) -> tuple[float, float]:
        """Add the gradients of one batch; its (loss, base loss)."""
        crew, compute = self.crew, self.crew.compute
        batch = crew.together(self.loader.take).to(compute.device)
        with (
            _seeded(seed_of(self.config.seed, index, crew.rank, 3), compute.device),
            crew.accelerator.accumulate(self._averaged),
        ):
            loss, base = self._averaged(batch, self.run.step)
            crew.accelerator.backward(loss)
        return float(loss.detach()), float(base)

    def _update(self, finite: bool) -> None:
        run = self.run
        if finite:
            run.optimizer.step()
            run.ema.update_parameters(run.denoiser.net)
            run.bad_steps = 0
        else:
            run.bad_steps += 1
            run.skipped += 1
        run.step += 1


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from the global generators: seed them inside, and leave them as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
