"""How a denoiser is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from dreamsr.config.checks import require
from dreamsr.config.model import ModelConfig


@dataclass(frozen=True)
class DreamConfig:
    """DREAM's settings: `power` is p of lam = level ** p; infinity means plain training.

    `start` is the optimizer step from which the model's own estimate is good enough to be used.
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
    """

    steps: int = 0
    rollout_steps: tuple[int, ...] = (1, 2, 4)
    earlier_share: float = 0.5
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 2e-4
    warmup_steps: int = 100
    l1: float = 2.0
    feature: float = 0.5
    adversarial: float = 0.003
    features: Literal["none", "alex", "encoder"] = "alex"
    discriminator: Literal["pixels", "features"] = "pixels"
    discriminator_channels: int = 48

    def __post_init__(self) -> None:
        require(self.steps >= 0, "finish.steps", self.steps, "0 or more")
        rollouts_fit = bool(self.rollout_steps) and all(steps >= 1 for steps in self.rollout_steps)
        require(rollouts_fit, "finish.rollout_steps", self.rollout_steps, "numbers from 1 up, at least one")
        require(0 <= self.earlier_share <= 1, "finish.earlier_share", self.earlier_share, "in [0, 1]")
        for name in ("learning_rate", "discriminator_learning_rate"):
            rate = getattr(self, name)
            require(0 < rate < math.inf, f"finish.{name}", rate, "above 0 and finite")
        require(self.warmup_steps >= 0, "finish.warmup_steps", self.warmup_steps, "0 or more")
        for name in ("l1", "feature", "adversarial"):
            weight = getattr(self, name)
            require(0 <= weight < math.inf, f"finish.{name}", weight, "0 or more and finite")
        width = self.discriminator_channels
        require(1 <= width <= 1024, "finish.discriminator_channels", width, "1..1024")

    @property
    def compares_features(self) -> bool:
        return self.feature > 0 and self.features != "none"

    @property
    def needs_encoder(self) -> bool:
        """Whether loss or discriminator look through the refiner's own encoder."""
        judged = self.adversarial > 0 and self.discriminator == "features"
        return judged or (self.compares_features and self.features == "encoder")


Stage = Literal["base", "plain", "dream", "finish"]


@dataclass(frozen=True)
class PhotoConfig:
    """The degradation "photo": what happens to pictures on their way through cameras, phones and the web.

    Second-order blur, resize, noise and JPEG after Real-ESRGAN (Wang et al. 2021, section 3) with BSRGAN's random
    order (Zhang et al. 2021). Pairs are ranges to draw from; blur in px (standard deviation), noise in levels of
    255, resize as a factor (of the large image in the first round, of the small one in the second), JPEG as
    Pillow's quality. `second_probability` is that of the second round, `grey_noise_probability` that of noise equal
    in all channels, `poisson_probability` that of shot noise, `sinc_probability` that of ringing in place of a blur.

    For everyday pictures, which suffer less and otherwise; at their defaults these change nothing:
    clean_share: of crops that are shrunk by MATLAB's bicubic and nothing else.
    light_share: of crops shrunk likewise and then compressed once, by JPEG of quality 75..98.
    early_shrink_probability: the picture is shrunk, with a filter, right after the first blur, so that the first
        round's noise and JPEG are those of a small picture and its resize is relative to the small image.
    resize_probability: of the resize in each round.
    jpeg_probability: of each compression.
    double_jpeg_probability: of a second JPEG behind each, of another quality and on another grid of blocks.
    subsampling_probability: of JPEG with colour at half the size (4:2:0), as most cameras and sites write, not 4:4:4.
    webp_probability: of WebP in place of JPEG, of the same quality number; its colour always has half the size.
    sharpen_probability: of unsharp masking, of radius .6..1.3 px, before the first JPEG, as phones do.
    sharpen: its amount; 1 adds once what the blur takes away.
    camera_noise_probability: of noise as cameras leave it, in place of the other two kinds: fine in luma, in coloured
        blobs of some px in chroma, and twice as strong in shadows as in the light.
    chroma_noise: strength of those blobs, as a factor of the noise in luma.
    """

    blur_px: tuple[float, float] = (0.2, 3.0)
    blur_probability: float = 0.9
    second_blur_px: tuple[float, float] = (0.2, 1.5)
    second_blur_probability: float = 0.6
    resize: tuple[float, float] = (0.3, 1.5)
    second_resize: tuple[float, float] = (0.5, 1.3)
    noise: tuple[float, float] = (1.0, 25.0)
    noise_probability: float = 0.9
    grey_noise_probability: float = 0.4
    poisson_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (30, 95)
    second_probability: float = 0.8
    sinc_probability: float = 0.1
    final_sinc_probability: float = 0.4
    clean_share: float = 0.0
    light_share: float = 0.0
    early_shrink_probability: float = 0.0
    resize_probability: float = 1.0
    jpeg_probability: float = 1.0
    double_jpeg_probability: float = 0.0
    subsampling_probability: float = 0.7
    webp_probability: float = 0.0
    sharpen_probability: float = 0.0
    sharpen: tuple[float, float] = (0.3, 1.2)
    camera_noise_probability: float = 0.0
    chroma_noise: tuple[float, float] = (0.3, 1.5)

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self) if one.name.endswith(("_probability", "_share"))):
            value = getattr(self, name)
            require(0 <= value <= 1, f"photo.{name}", value, "in [0, 1]")
        shares = self.clean_share + self.light_share
        require(shares <= 1, "photo.clean_share + photo.light_share", shares, "at most 1")
        for name, least, most in (
            ("blur_px", 0, 20),
            ("second_blur_px", 0, 20),
            ("resize", 0.05, 4),
            ("second_resize", 0.05, 4),
            ("noise", 0, 128),
            ("sharpen", 0, 10),
            ("chroma_noise", 0, 10),
        ):
            low, high = getattr(self, name)
            require(least <= low <= high <= most, f"photo.{name}", (low, high), f"rising and in {least}..{most}")
        low, high = self.jpeg_quality
        require(1 <= low <= high <= 100, "photo.jpeg_quality", (low, high), "rising and in 1..100")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Sizes in pixels of the small image unless the name says otherwise.

    One optimizer step takes `batch_size` crops `accumulate` times in each process. `loss` is that of a denoising
    step; the base is always trained by l1. `ema_halflife_steps` 0 keeps the weights as they are. With
    `continuous_time` the noise level is drawn between whole times, as SR3 does. `valid_steps` are the numbers of
    denoising steps that every validation tries, `default_steps` what the weights recommend for use. `drawn_share` is
    the share of crops that are cut from drawn pictures (text, screens, line art, pixel art) in place of photos.

    The first `base_steps` train the base alone, the last `finish.steps` finish the net on its own rollouts.
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
        require(self.crop_low_px >= 8, "crop_low_px", self.crop_low_px, "8 or more")
        require(self.crop_candidates >= 1, "crop_candidates", self.crop_candidates, "1 or more")
        shrinks_fit = bool(self.shrink_factors) and all(1 <= s <= 8 for s in self.shrink_factors)
        require(shrinks_fit, "shrink_factors", self.shrink_factors, "integers 1..8")
        require(0 <= self.drawn_share <= 1, "drawn_share", self.drawn_share, "in [0, 1]")
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
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(self.default_steps >= 1, "default_steps", self.default_steps, "1 or more")
        require(self.save_every >= 1, "save_every", self.save_every, "1 or more")
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
    def finish_start(self) -> int:
        """The optimizer step, counted from 0, with which finishing begins; `max_steps` where there is none."""
        return self.max_steps - self.finish.steps

    def stage(self, step: int) -> Stage:
        """What optimizer step `step`, counted from 0, trains: the base alone, the denoiser with DREAM or plainly, or
        its own rollouts."""
        if step < self.base_steps:
            return "base"
        if self.finish.steps > 0 and step >= self.finish_start:
            return "finish"
        return "dream" if self.dream.enabled and step >= self.dream.start else "plain"

    @property
    def usual_steps(self) -> int:
        """`default_steps`, or T where the process has fewer: what the weights will recommend."""
        return min(self.default_steps, self.model.process.timesteps)
