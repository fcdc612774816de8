"""What a training run carries from step to step: the net, its average, the optimizer, and a few counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import Compute
from dreamsr.core.model import build_denoiser, build_net
from dreamsr.errors import ConfigError
from dreamsr.training.config import TrainConfig
from dreamsr.training.finishing import FinishState, adversarial_adam, prepare

TensorList = tuple[Tensor, ...] | list[Tensor]


@dataclass
class Run:
    """`step` counts finished optimizer steps, `skipped` those without an update because a loss was not finite,
    `bad_steps` such steps in a row; `best_score` is that of the best validation, None before the first. `finish` is
    what the finishing stage needs besides, None for runs without one."""

    denoiser: Denoiser
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    skipped: int = 0
    bad_steps: int = 0
    best_score: float | None = None
    finish: FinishState | None = None

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to go on bit for bit."""
        return {
            "net": self.denoiser.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "bad_steps": self.bad_steps,
            "best_score": self.best_score,
            "finish": None if self.finish is None else self.finish.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Bring this run to `state`. Raises KeyError, ValueError or RuntimeError for the state of another net."""
        self.denoiser.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.skipped, self.bad_steps = state["step"], state["skipped"], state["bad_steps"]
        self.best_score = state["best_score"]
        kept = state.get("finish")  # runs may be given a finishing stage, or another, before it begins
        if self.finish is not None and kept is not None:
            self.finish.load(kept)

    def begin_finishing(self, learning_rate: float) -> None:
        """The stage begins with the average, which is better than the net of the moment, and with a new optimizer."""
        if self.finish is None:
            raise ValueError("this run was begun without a finishing stage")
        net = self.denoiser.net
        net.load_state_dict(self.ema.module.state_dict())
        self.optimizer = adversarial_adam(net, learning_rate)
        self.finish.begin(net)


def begin(
    config: TrainConfig, compute: Compute, start_from: Mapping[str, Tensor] | None, *, partial: bool = False
) -> Run:
    """A fresh run: net initialised from the seed (or from `start_from`, `partial` in part), its EMA, its optimizer.

    Raises ConfigError where a base is to be trained in a net that predicts none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = build_net(config.model)
    if config.base_steps > 0 and not config.model.architecture.predicts_base:
        raise ConfigError(
            f"base_steps is {config.base_steps}, but it must be 0 with {config.model.backbone}, whose base is bicubic"
        )
    if start_from is not None:
        net.load_state_dict({**net.state_dict(), **start_from} if partial else start_from)
    net = net.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = AveragedModel(net, multi_avg_fn=_average(config.ema_halflife_steps)).eval()
    # Without weight decay AdamW is Adam.
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0)
    finish = prepare(config, net, compute) if config.finish.steps > 0 else None
    return Run(build_denoiser(config.model, net, compute=compute), ema, optimizer, finish=finish)


def _average(halflife_steps: float) -> Callable[[TensorList, TensorList, Tensor | int], None]:
    """An exponential moving average that forgets half in `halflife_steps`, faster while it has seen little.

    A half-life of 0 keeps no memory: the average is a copy.
    """

    @torch.no_grad()
    def update(averaged: TensorList, current: TensorList, seen: Tensor | int) -> None:
        if halflife_steps == 0:
            torch._foreach_copy_(averaged, current)
            return
        count = float(seen)
        decay = min(0.5 ** (1 / halflife_steps), (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    return update
