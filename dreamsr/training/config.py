"""How a denoiser is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dreamsr.config import require
from dreamsr.core.denoiser import Traits
from dreamsr.core.model import ModelConfig
from dreamsr.data.settings import CropConfig, PhotoConfig


@dataclass(frozen=True)
class DreamConfig:
    """DREAM's settings.

    power: p of lam = level ** p; infinity means plain training.
    start: the optimizer step from which the model's own estimate is good enough to be used.
    """

    power: float = 1.0
    start: int = 0

    def __post_init__(self) -> None:
        require(self.power >= 0, "dream.power", self.power, "0 or more, or inf for plain training")
        require(self.start >= 0, "dream.start", self.start, "0 or more")

    @property
    def enabled(self) -> bool:
        return math.isfinite(self.power)


@dataclass(frozen=True)
class FinishConfig:
    """The finishing stage: the net learns on its own rollouts, against a discriminator.

    steps: how many optimizer steps, the last of `max_steps`, are finishing steps; 0 for none.
    rollout_steps: numbers of sampler steps, one of which is drawn for every optimizer step.
    earlier_share: how often an earlier step than the rollout's last is the one that learns.
    learning_rate, discriminator_learning_rate: highest rates of net and discriminator, constant until a last fall.
    warmup_steps: optimizer steps until these rates are reached.
    l1, feature, adversarial: weights of the guess's three losses; the base has its own, of weight 1, as always. Without
        `adversarial` there is no discriminator.
    features: what the feature loss compares: "alex" is LPIPS v0.1 with AlexNet (needs dreamsr[lpips]), "encoder" the
        refiner's own encoder as it is when finishing begins, "none" leaves the loss out.
    discriminator: what is judged: "pixels" beside their difference from y, or "features" of the refiner's own encoder.
    discriminator_channels: width of the discriminator's first layer.
    gradient_penalty: weight of the discriminator's squared slope at true pictures and at guesses, beside its own loss.
        That loss is log 2 where both sides are equal, and .3 to .6 in a fair game; below .2 the discriminator wins, its
        slope grows, and with it what it asks of the net: raise the weight. At 0 it wins within 100 steps.
    penalty_every: the penalty is made in every so many-th optimizer step, and is as many times as heavy there.
    """

    steps: int = 0
    rollout_steps: tuple[int, ...] = (1, 2, 4)
    earlier_share: float = 0.5
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 2e-4
    warmup_steps: int = 100
    l1: float = 2.0
    feature: float = 0.5
    adversarial: float = 0.03
    features: Literal["none", "alex", "encoder"] = "alex"
    discriminator: Literal["pixels", "features"] = "pixels"
    discriminator_channels: int = 48
    gradient_penalty: float = 0.001
    penalty_every: int = 4

    def __post_init__(self) -> None:
        require(self.steps >= 0, "finish.steps", self.steps, "0 or more")
        rollouts_fit = bool(self.rollout_steps) and all(steps >= 1 for steps in self.rollout_steps)
        require(rollouts_fit, "finish.rollout_steps", self.rollout_steps, "numbers from 1 up, at least one")
        require(0 <= self.earlier_share <= 1, "finish.earlier_share", self.earlier_share, "in [0, 1]")
        for name in ("learning_rate", "discriminator_learning_rate"):
            rate = getattr(self, name)
            require(0 < rate < math.inf, f"finish.{name}", rate, "above 0 and finite")
        require(self.warmup_steps >= 0, "finish.warmup_steps", self.warmup_steps, "0 or more")
        require(self.penalty_every >= 1, "finish.penalty_every", self.penalty_every, "1 or more")
        for name in ("l1", "feature", "adversarial", "gradient_penalty"):
            weight = getattr(self, name)
            require(0 <= weight < math.inf, f"finish.{name}", weight, "0 or more and finite")
        width = self.discriminator_channels
        require(1 <= width <= 1024, "finish.discriminator_channels", width, "1..1024")

    def penalises(self, step: int) -> bool:
        """Whether the gradient penalty is due in optimizer step `step`."""
        return self.gradient_penalty > 0 and step % self.penalty_every == 0

    @property
    def compares_features(self) -> bool:
        return self.feature > 0 and self.features != "none"

    @property
    def needs_encoder(self) -> bool:
        """Whether loss or discriminator look through the refiner's own encoder."""
        judged = self.adversarial > 0 and self.discriminator == "features"
        return judged or (self.compares_features and self.features == "encoder")


StageName = Literal["base", "plain", "dream", "finish"]


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    model: what is trained.
    dream: how DREAM trains it.
    finish: how the last steps finish it on its own rollouts.
    degradation, photo, drawn_share, crop_low_px, crop_candidates, shrink_factors: the crops; see `CropConfig`.
    max_steps: optimizer steps in all.
    base_steps: how many of them, the first, train the base alone.
    batch_size: crops that a process passes through the net at once.
    accumulate: batches that make one optimizer step, in each process.
    loss: of a denoising step, the mean of the absolute or of the squared error; the base is always trained by l1.
    continuous_time: draw the noise level between whole times too, as SR3 does.
    learning_rate: the highest.
    rate_schedule: how it goes on after the warm-up: "cosine" falls to a hundredth, "constant" stays.
    warmup_steps: optimizer steps in which the rate rises to its highest.
    betas: Adam's decay of the mean gradient and of the mean squared gradient.
    clip_norm: longer gradients of the net are shortened to this norm; infinity never does.
    ema_halflife_steps: optimizer steps after which a step counts half in the averaged weights; 0 averages nothing.
    precision: number format that the net runs in; "auto" is bf16 where the hardware computes it natively.
    default_steps: denoising steps that the weights recommend for use.
    save_every: optimizer steps between checkpoints.
    keep_last: so many checkpoints are kept.
    valid_every: optimizer steps between validations.
    valid_steps: numbers of denoising steps that every validation tries.
    valid_limit: pictures of the validation folder that are measured.
    seed: of the net's first parameters, of the crops and of all noise.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    dream: DreamConfig = field(default_factory=lambda: DreamConfig(power=math.inf))
    finish: FinishConfig = field(default_factory=FinishConfig)
    degradation: Literal["bicubic", "photo"] = "bicubic"
    photo: PhotoConfig = field(default_factory=PhotoConfig)
    drawn_share: float = 0.0
    max_steps: int = 100_000
    base_steps: int = 0
    batch_size: int = 16
    accumulate: int = 1
    crop_low_px: int = 32
    crop_candidates: int = 3
    shrink_factors: tuple[int, ...] = (1, 2)
    loss: Literal["l1", "l2"] = "l1"
    continuous_time: bool = False
    learning_rate: float = 1e-3
    rate_schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 0.5
    ema_halflife_steps: float = 500.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    default_steps: int = 4
    save_every: int = 500
    keep_last: int = 3
    valid_every: int = 1000
    valid_steps: tuple[int, ...] = (1, 4, 16)
    valid_limit: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.max_steps >= 0, "max_steps", self.max_steps, "0 or more")
        require(self.base_steps >= 0, "base_steps", self.base_steps, "0 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0 and finite")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0, or inf for no clipping")
        require(self.ema_halflife_steps >= 0, "ema_halflife_steps", self.ema_halflife_steps, "0 or more")
        require(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        require(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more")
        require(self.keep_last >= 1, "keep_last", self.keep_last, "1 or more")
        require(self.valid_every >= 1, "valid_every", self.valid_every, "1 or more")
        require(self.valid_limit >= 1, "valid_limit", self.valid_limit, "1 or more")
        steps, most = self.valid_steps, self.model.process.timesteps
        require(all(s >= 1 for s in steps), "valid_steps", steps, f"numbers in 1..{most}")
        require(self.default_steps >= 1, "default_steps", self.default_steps, "1 or more")
        require(self.save_every >= 1, "save_every", self.save_every, "1 or more")
        _ = self.crops  # they check their own fields
        if self.finish.steps > 0:
            self._require_room_to_finish()

    def _require_room_to_finish(self) -> None:
        finish, most = self.finish, self.model.process.timesteps
        left = self.max_steps - self.base_steps
        possible = f"at most max_steps - base_steps, here {self.max_steps} - {self.base_steps}"
        require(finish.steps <= left, "finish.steps", finish.steps, possible)
        rollouts = finish.rollout_steps
        require(all(steps <= most for steps in rollouts), "finish.rollout_steps", rollouts, f"numbers in 1..{most}")
        if finish.needs_encoder:
            backbone = self.model.backbone
            possible = "refiner where finish.features is encoder or finish.discriminator is features"
            require(backbone == "refiner", "model.backbone", backbone, possible)

    @property
    def crops(self) -> CropConfig:
        """What the pictures' room is told of the run. Raises ConfigError where it is impossible."""
        return CropConfig(
            scale=self.model.scale,
            crop_low_px=self.crop_low_px,
            crop_candidates=self.crop_candidates,
            shrink_factors=self.shrink_factors,
            degradation=self.degradation,
            photo=self.photo,
            drawn_share=self.drawn_share,
            seed=self.seed,
        )

    @property
    def finish_start(self) -> int:
        """The optimizer step, counted from 0, with which finishing begins; `max_steps` where there is none."""
        return self.max_steps - self.finish.steps

    def stage(self, step: int) -> StageName:
        """What optimizer step `step`, counted from 0, trains: the base alone, the denoiser with DREAM or plainly, or
        its own rollouts."""
        if step < self.base_steps:
            return "base"
        if self.finish.steps > 0 and step >= self.finish_start:
            return "finish"
        return "dream" if self.dream.enabled and step >= self.dream.start else "plain"

    @property
    def traits(self) -> Traits:
        """What this training makes of a net; `Weights.traits` reads the same from a header."""
        return Traits.of(degradation=self.degradation, finish_steps=self.finish.steps)

    @property
    def usual_steps(self) -> int:
        """`default_steps`, or T where the process has fewer: what the weights will recommend."""
        return min(self.default_steps, self.model.process.timesteps)
