"""One optimizer step: the loss, the learning rate, and the update from the batches of all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.discriminator import Discriminator
from dreamsr.core.dream import dream_loss
from dreamsr.core.noise import seed_of
from dreamsr.processes import TrainingProcesses
from dreamsr.training.config import StageName, TrainConfig
from dreamsr.training.finishing import FinishLoss, Losses, base_loss, conditioned
from dreamsr.training.loader import Batch, Loader
from dreamsr.training.state import Run


class StepLoss(nn.Module):
    """The loss of one batch before finishing: (whole loss, loss of the base y), both scalars.

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
        condition = conditioned(self.denoiser, batch, config)
        base = base_loss(config.model, condition, x0)
        stage = config.stage(step)
        if stage == "base":
            return base, base.detach()
        power = config.dream.power if stage == "dream" else math.inf
        t = torch.tensor(batch.t, dtype=torch.float64)
        error = dream_loss(self.denoiser, x0, condition.detached(), batch.eps, t, power=power, loss=config.loss).mean()
        return base + error, base.detach()


def losses_of(run: Run, config: TrainConfig, stage: StageName) -> nn.Module:
    """The module that computes the losses of one stage, (batch, step) -> the fields of `Losses`."""
    if stage == "finish" and run.finish is not None:
        return FinishLoss(run.denoiser, run.finish, config)
    return StepLoss(run.denoiser, config)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Warm-up, then a cosine or a constant; once for the base, once for the denoiser, and once for finishing.

    Finishing is constant until a cosine in its last fifth.
    """
    if config.stage(step) == "finish":
        finish, done = config.finish, step - config.finish_start
        fall = max(0.0, 5 * done / finish.steps - 4)
        return finish.learning_rate * _warm(done, finish.warmup_steps) * _cosine(fall)
    first, last = (0, config.base_steps) if step < config.base_steps else (config.base_steps, config.finish_start)
    warm = _warm(step - first, config.warmup_steps)
    if config.rate_schedule == "constant":
        return config.learning_rate * warm
    return config.learning_rate * warm * _cosine((step - first) / max(1, last - first))


def _warm(done: int, steps: int) -> float:
    return min(1.0, (done + 1) / max(1, steps))


def _cosine(done: float) -> float:
    """From 1 at 0 to a hundredth at 1."""
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done))


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step gave: means over all its crops, in all processes.

    finite: whether losses and gradients were, without which no update is made. stop: whether any process was asked to
    stop. parts: in finishing, the losses by name, unweighted.
    """

    loss: float
    base_loss: float
    learning_rate: float
    finite: bool
    stop: bool
    stage: StageName
    parts: Mapping[str, float]


class Stepper:
    """Takes optimizer steps with `run`, fed by `loader`, together with the other processes of `processes`."""

    def __init__(self, run: Run, config: TrainConfig, processes: TrainingProcesses, loader: Loader) -> None:
        self.run = run
        self.config = config
        self.processes = processes
        self.loader = loader
        self._averaged = self._average(config.stage(run.step))

    def _average(self, stage: StageName) -> nn.Module:
        """The losses of `stage`, averaged over the processes from now on."""
        # In the base phase a part of the net is not used, which averaging must know and pays for.
        return self.processes.averaging(losses_of(self.run, self.config, stage), some_unused=stage == "base")

    def advance(self, stop: Callable[[], bool]) -> StepResult:
        """One optimizer step, or none where loss or gradient is not finite; `run` counts either.

        Raises DataError for pictures that cannot be read.
        """
        run, config = self.run, self.config
        stage = config.stage(run.step)
        if stage == "finish" and run.step == config.finish_start:
            run.begin_finishing(config.finish.learning_rate)
        if run.step in (config.base_steps, config.finish_start):
            del self._averaged  # only one may listen to the parameters
            self._averaged = self._average(stage)
        rate = self._prepare()
        losses = [self._backward(run.step * config.accumulate + a) for a in range(config.accumulate)]
        means = {name: sum(one[name] for one in losses) / config.accumulate for name in losses[0]}
        *values, norm, asked = self.processes.mean([*means.values(), self._clipped(), float(stop())])
        finite = all(math.isfinite(value) for value in (*values, norm))
        self._update(finite)
        parts = dict(zip(means, values, strict=True))
        return StepResult(parts.pop("loss"), parts.pop("base_loss"), rate, finite, asked > 0, stage, parts)

    def _prepare(self) -> float:
        """Set rates and clear gradients for a step; the net's rate."""
        run, config = self.run, self.config
        rate = learning_rate(config, run.step)
        share = rate / config.finish.learning_rate
        rates = (rate, share * config.finish.discriminator_learning_rate)
        for (module, optimizer), own in zip(self._learners(), rates, strict=False):
            if isinstance(module, Discriminator):
                module.settle()
            for group in optimizer.param_groups:
                group["lr"] = own
            optimizer.zero_grad(set_to_none=True)
        return rate

    def _learners(self) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
        """What this step trains: the net, and in finishing the discriminator."""
        run = self.run
        learners: list[tuple[nn.Module, torch.optim.Optimizer]] = [(run.denoiser.net, run.optimizer)]
        finish = run.finish if self.config.stage(run.step) == "finish" else None
        if finish is not None and finish.discriminator is not None and finish.optimizer is not None:
            learners.append((finish.discriminator, finish.optimizer))
        return learners

    def _clipped(self) -> float:
        """Clip the net's gradients; the sum of all learners' norms before that.

        A discriminator's stay as they are: shortened, a penalty that is made now and then would lose its weight.
        """
        clips = (self.config.clip_norm, math.inf)
        learners = zip(self._learners(), clips, strict=False)
        return sum(float(nn.utils.clip_grad_norm_(module.parameters(), clip)) for (module, _), clip in learners)

    def _backward(self, index: int) -> dict[str, float]:
        """Add the gradients of one batch; its losses by name."""
        processes, compute = self.processes, self.processes.compute
        batch = processes.together(self.loader.take).to(compute.device)
        with (
            _seeded(seed_of(self.config.seed, index, processes.rank, 3), compute.device),
            processes.accelerator.accumulate(self._averaged),
        ):
            losses = Losses(*self._averaged(batch, self.run.step))
            processes.accelerator.backward(losses.minimised)
        return losses.as_numbers()

    def _update(self, finite: bool) -> None:
        run = self.run
        if finite:
            for _, optimizer in self._learners():
                optimizer.step()
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
