"""The finishing stage: the net learns on its own rollouts, by L1, a feature distance and a discriminator.

DREAM's thought carried to its end: the net is trained on exactly what sampling will show it. One optimizer step draws
K, a number of sampler steps, and one index k of them; runs the k steps before it without gradient, from the start noise
of each crop; and takes the guess of step k with gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser, evaluating
from dreamsr.core.device import Compute
from dreamsr.core.discriminator import (
    Discriminator,
    FeatureDiscriminator,
    PixelDiscriminator,
    gradient_penalty,
    pairing_loss,
    scores_for_the_net,
)
from dreamsr.core.model import ModelConfig
from dreamsr.core.noise import seed_of
from dreamsr.core.samplers import sample, spaced_times
from dreamsr.errors import UsageError
from dreamsr.measure.lpips import INSTALL
from dreamsr.training.config import FinishConfig, TrainConfig
from dreamsr.training.loader import Batch

BETAS = (0.5, 0.99)
"""Adam's for both sides of an adversarial game: less momentum, since what is best moves."""
LARGEST_SHIFT_PX = 3
"""AlexNet's first layer has stride 4: all its grids are met."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""(guess, truth), both [B,3,H,W] in [-1,1] -> [B]; its gradient goes to the guess."""


@dataclass(frozen=True)
class Draw:
    """What one optimizer step does: guess at step `index` of a rollout of `steps`, compared from pixel `shift` on."""

    steps: int
    index: int
    shift: tuple[int, int]


def draw(config: TrainConfig, step: int) -> Draw:
    """A pure function of the seed and the step: all batches and processes of a step do the same."""
    finish = config.finish
    generator = torch.Generator().manual_seed(seed_of(config.seed, step, 4))

    def below(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    shift = (below(LARGEST_SHIFT_PX + 1), below(LARGEST_SHIFT_PX + 1))
    steps = finish.rollout_steps[below(len(finish.rollout_steps))]
    earlier = float(torch.rand(1, generator=generator)) < finish.earlier_share
    return Draw(steps, below(steps - 1) if earlier and steps > 1 else steps - 1, shift)


def rollout(denoiser: Denoiser, condition: Condition, noise: Tensor, *, steps: int, index: int) -> Tensor:
    """x0_hat [B,3,H,W] of step `index`, 0 .. steps - 1, of the deterministic sampler; its gradient is that step's."""
    with evaluating(denoiser.net):
        x_t = sample(denoiser, condition, steps=steps, noise=lambda _: noise, until=index)
    t = spaced_times(denoiser.process.timesteps, steps)[index].expand(len(noise))
    return denoiser(x_t, condition, t)


def shifted(images: Tensor, shift: tuple[int, int]) -> Tensor:
    """[B,3,H,W] from pixel `shift` on, (down, right)."""
    return images[..., shift[0] :, shift[1] :]


def encoder_distance(encode: Callable[[Tensor], Tensor]) -> Distance:
    """The mean absolute difference of features [B,C,H,W], in units of the truth's mean absolute feature."""

    def distance(guess: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = encode(truth).float()
        difference = (encode(guess).float() - wanted).abs().mean(dim=(1, 2, 3))  # [B]
        return difference / wanted.abs().mean(dim=(1, 2, 3)).clamp_min(1e-4)

    return distance


def alex_distance(compute: Compute) -> Distance:
    """LPIPS v0.1 with AlexNet (Zhang et al. 2018). Raises UsageError in one line where it is not installed."""
    net = _alex_net().to(compute.device)

    def distance(guess: Tensor, truth: Tensor) -> Tensor:
        values: Tensor = net(guess, truth)  # [B,1,1,1]
        return values.float().flatten()

    return distance


def _alex_net() -> nn.Module:
    try:
        from torchmetrics.functional.image.lpips import _NoTrainLpips

        net: nn.Module = _NoTrainLpips(net="alex")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = f"install it: {INSTALL}" if isinstance(error, ImportError) else str(error).split("\n", maxsplit=1)[0]
        raise UsageError(
            f"finish.features is 'alex', but LPIPS does not work here ({reason}); or choose encoder or none"
        ) from None
    return net.requires_grad_(False)


@dataclass
class FinishState:
    """What the stage carries beside the net: how features are compared, and the discriminator.

    `encoder` is the refiner's own as it was when finishing began; `discriminator` and its `optimizer` are None where
    nothing is adversarial.
    """

    distance: Distance | None
    encoder: nn.Module | None
    discriminator: Discriminator | None
    optimizer: torch.optim.Optimizer | None

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to go on bit for bit."""
        parts = {"encoder": self.encoder, "discriminator": self.discriminator, "optimizer": self.optimizer}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load(self, state: Mapping[str, Any]) -> None:
        """Bring this to `state`. Raises KeyError, ValueError or RuntimeError for that of another configuration."""
        for name, part in (("encoder", self.encoder), ("discriminator", self.discriminator)):
            if part is not None:
                part.load_state_dict(state[name])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def begin(self, net: nn.Module) -> None:
        """The stage begins with `net`: its encoder is the one to compare and judge with."""
        if self.encoder is not None:
            self.encoder.load_state_dict(net.get_submodule("encoder").state_dict())


def prepare(config: TrainConfig, net: nn.Module, compute: Compute) -> FinishState:
    """The stage's parts, before the run's first step, so that what is missing is told then. Raises UsageError."""
    finish = config.finish
    encoder: nn.Module | None = None
    if finish.needs_encoder:
        encoder = copy.deepcopy(net.get_submodule("encoder")).requires_grad_(False).eval()

    def encode(images: Tensor) -> Tensor:
        if encoder is None:
            raise ValueError("this stage has no encoder to look through")
        features: Tensor = encoder(images)
        return features

    distance: Distance | None = None
    if finish.compares_features:
        distance = alex_distance(compute) if finish.features == "alex" else encoder_distance(encode)
    if finish.adversarial == 0:
        return FinishState(distance, encoder, None, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, 5))
        discriminator = _discriminator(config, encode)
    discriminator = discriminator.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = adversarial_adam(discriminator, finish.discriminator_learning_rate)
    return FinishState(distance, encoder, discriminator, optimizer)


def _discriminator(config: TrainConfig, encode: Callable[[Tensor], Tensor]) -> Discriminator:
    finish = config.finish
    if finish.discriminator == "features":
        inputs = config.model.sizes.encoder_channels
        return FeatureDiscriminator(encode, inputs, finish.discriminator_channels)
    return PixelDiscriminator(finish.discriminator_channels)


def adversarial_adam(module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam for one side of the game; without weight decay AdamW is Adam."""
    return torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=BETAS, weight_decay=0.0)


class Losses(NamedTuple):
    """Of one batch, all scalars: `whole` is what the net minimises, `base` that of y, `parts` the unweighted rest.

    `discriminator` is the other side's own loss, None without one; `penalty` what is added to it, None where not due.
    """

    whole: Tensor
    base: Tensor
    parts: Mapping[str, Tensor] = {}
    discriminator: Tensor | None = None
    penalty: Tensor | None = None

    @property
    def minimised(self) -> Tensor:
        """What to differentiate: neither side's loss has a gradient for the other's parameters."""
        return sum((loss for loss in (self.discriminator, self.penalty) if loss is not None), start=self.whole)

    def as_numbers(self) -> dict[str, float]:
        """Every loss by its name."""
        others = {"discriminator": self.discriminator, "penalty": self.penalty}
        known = {"loss": self.whole, "base_loss": self.base, **self.parts, **others}
        return {name: float(value.detach()) for name, value in known.items() if value is not None}


class FinishLoss(nn.Module):
    """The losses of one finishing batch, net's and discriminator's in one `forward`.

    One forward, as in `StepLoss`: both sides learn from the same guess at the same time, and what averages gradients
    over processes sees one module.
    """

    def __init__(self, denoiser: Denoiser, state: FinishState, config: TrainConfig) -> None:
        super().__init__()
        self.net = denoiser.net
        self.denoiser = denoiser
        self.discriminator = state.discriminator
        self.distance = state.distance
        self.config = config

    def forward(self, batch: Batch, step: int) -> Losses:
        """Every loss is computed by image, [B], and averaged here."""
        config, finish, x0 = self.config, self.config.finish, batch.x0
        drawn = draw(config, step)
        condition = conditioned(self.denoiser, batch, config)
        base = base_loss(config.model, condition, x0)
        y = condition.y.detach()
        x0_hat = rollout(self.denoiser, condition.detached(), batch.eps, steps=drawn.steps, index=drawn.index)
        parts = {"l1": (x0_hat - x0).abs().mean(dim=(1, 2, 3))}  # [B] each
        with self.denoiser.compute.autocast():
            if self.distance is not None:
                parts["feature"] = self.distance(shifted(x0_hat, drawn.shift), shifted(x0, drawn.shift))
            discriminator: Tensor | None = None
            if self.discriminator is not None:
                truth = self.discriminator(x0, y)
                discriminator = pairing_loss(truth, self.discriminator(x0_hat.detach(), y)).mean()
                kept = [scores.detach() for scores in truth]
                parts["adversarial"] = pairing_loss(scores_for_the_net(self.discriminator, x0_hat, y), kept)
        means = {name: value.mean() for name, value in parts.items()}
        whole = base + sum(_weight(finish, name) * value for name, value in means.items())
        return Losses(whole, base.detach(), means, discriminator, self._penalty((x0, x0_hat), y, step))

    def _penalty(self, pictures: Sequence[Tensor], y: Tensor, step: int) -> Tensor | None:
        """For slopes of the discriminator at true pictures and guesses, [B,3,H,W] each; None in steps without it.

        Made now and then, for all the steps between (Karras et al. 2020, StyleGAN2), and in float32.
        """
        finish = self.config.finish
        if self.discriminator is None or not finish.penalises(step):
            return None
        slopes = torch.stack([gradient_penalty(self.discriminator, one, y) for one in pictures])  # [2,B]
        return finish.gradient_penalty * finish.penalty_every * slopes.mean()


def _weight(finish: FinishConfig, name: str) -> float:
    weight: float = getattr(finish, name)
    return weight


def conditioned(denoiser: Denoiser, batch: Batch, config: TrainConfig) -> Condition:
    """What the net knows of a batch; a continuous net is told the exact factor."""
    factor = Fraction(batch.x0.shape[-1], batch.low.shape[-1]) if config.model.architecture.continuous else None
    return denoiser.condition(batch.low, factor)


def base_loss(model: ModelConfig, condition: Condition, x0: Tensor) -> Tensor:
    """The mean absolute error of y; 0 for nets that predict none."""
    return (condition.y - x0).abs().mean() if model.architecture.predicts_base else x0.new_zeros(())
