"""Train a denoiser on a folder of photos, with or without DREAM; stop and go on at any step.

Batches, times and noise are pure functions of (seed, step), so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dreamsr
from dreamsr.config import TrainConfig, from_mapping, to_mapping
from dreamsr.core.backbones import build_denoiser, build_net
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import Compute, choose_compute
from dreamsr.core.dream import dream_loss
from dreamsr.core.noise import seed_of
from dreamsr.errors import OutputError, TrainingError
from dreamsr.files.atomic import write_bytes_atomically
from dreamsr.files.pairs import CropPairs, PhotoFolder, smallest_side_px
from dreamsr.files.weights import FILE_NAME, save_weights

CHECKPOINT = "checkpoint.pt"
CONFIG = "config.json"
LOG = "log.jsonl"
MAX_BAD_STEPS = 5


@dataclass(frozen=True)
class Progress:
    """One optimizer step as told to the caller: step counts from 1."""

    step: int
    max_steps: int
    loss: float
    base_loss: float
    learning_rate: float
    images_per_second: float


OnProgress = Callable[[Progress], None]
TensorList = tuple[Tensor, ...] | list[Tensor]


@dataclass
class Run:
    """What a training run carries from step to step."""

    denoiser: Denoiser
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    bad_steps: int = 0


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    start_from: Mapping[str, Tensor] | None = None,
    on_progress: OnProgress | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Path:
    """Train until `config.max_steps` and return the weights file, `out/model.safetensors` (the EMA's).

    `start_from` is a state to begin with (fine-tuning). Raises DataError for unusable data, OutputError where
    `out` holds a run that is not to be resumed, TrainingError if the loss stays non-finite.
    """
    check_folder(out, config, resume=resume)
    pairs = open_pairs(config, data, on_notice)
    compute = choose_compute(device, config.precision)
    make_folder(out)
    run = begin(config, compute, start_from)
    if resume:
        restore(out / CHECKPOINT, run)
    facts = {
        "dreamsr": dreamsr.__version__,
        "torch": torch.__version__,
        "data": pairs.photos.fingerprint(),
        "device": str(compute.device),
    }
    write_bytes_atomically(out / CONFIG, json.dumps({"train": to_mapping(config), **facts}, indent=2).encode())
    try:
        while run.step < config.max_steps:
            advance(run, config, pairs, compute, out / LOG, on_progress)
            if run.step % config.save_every == 0 and run.step < config.max_steps:
                keep(out, run, config, facts)
    except KeyboardInterrupt:
        keep(out, run, config, facts)
        raise
    keep(out, run, config, facts)
    return out / FILE_NAME


def check_folder(out: Path, config: TrainConfig, *, resume: bool) -> None:
    """Make sure that `out` is new, or holds a run of the same configuration that is to be resumed."""
    exists = (out / CHECKPOINT).exists()
    if exists and not resume:
        raise OutputError(f"{out}: holds a training run already; go on with --resume or choose another --out")
    if resume and not exists:
        raise OutputError(f"{out}: holds no {CHECKPOINT} to resume; leave out --resume to start a run")
    if resume:
        kept = json.loads((out / CONFIG).read_text())["train"]
        before = from_mapping(TrainConfig, kept, source=str(out / CONFIG))
        if before != config:
            old, new = to_mapping(before), to_mapping(config)
            changed = ", ".join(f"{k}: {old[k]} -> {new[k]}" for k in old if old[k] != new[k])
            raise OutputError(f"{out}: the run to resume was started with other settings ({changed})")


def open_pairs(config: TrainConfig, data: Path, on_notice: Callable[[str], None] | None) -> CropPairs:
    """The crops of a run; tells how many photos there are and which cannot be used. Raises DataError."""
    scale = config.model.scale
    need = smallest_side_px(scale=scale, crop_low_px=config.crop_low_px)
    photos = PhotoFolder(data, scale=scale, min_side_px=need)
    if on_notice is not None:
        on_notice(f"{len(photos)} photos in {data}")
        for reason in photos.refused:
            on_notice(f"not used: {reason}")
    return CropPairs(
        photos,
        seed=config.seed,
        crop_low_px=config.crop_low_px,
        candidates=config.crop_candidates,
        shrink_factors=config.shrink_factors,
    )


def make_folder(out: Path) -> None:
    """Make the run's folder, once it is known that there is something to train on."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}); choose another --out") from None


def begin(config: TrainConfig, compute: Compute, start_from: Mapping[str, Tensor] | None) -> Run:
    """A fresh run: net initialised from the seed (or from `start_from`), its EMA, its optimizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = build_net(config.model)
    if start_from is not None:
        net.load_state_dict(start_from)
    net = net.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    halflife = config.ema_halflife_steps
    ema = AveragedModel(net, multi_avg_fn=_halflife_average(halflife))
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    return Run(build_denoiser(config.model, net, compute=compute), ema, optimizer)


def advance(
    run: Run, config: TrainConfig, pairs: CropPairs, compute: Compute, log: Path, on_progress: OnProgress | None
) -> None:
    """One optimizer step, logged."""
    began = time.perf_counter()
    low, x0 = (part.to(compute.device) for part in pairs.batch(run.step, config.batch_size))
    rate = learning_rate(config, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    base_loss, step_loss = losses(run, config, low, x0)
    loss = base_loss + step_loss
    run.optimizer.zero_grad(set_to_none=True)
    if torch.isfinite(loss):
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.denoiser.net.parameters(), config.clip_norm)
        run.optimizer.step()
        run.ema.update_parameters(run.denoiser.net)
        run.bad_steps = 0
    else:
        run.bad_steps += 1
        if run.bad_steps >= MAX_BAD_STEPS:
            raise TrainingError(
                f"the loss was not finite in {MAX_BAD_STEPS} steps in a row (step {run.step}); "
                "lower --learning-rate or use --precision fp32"
            )
    run.step += 1
    speed = config.batch_size / (time.perf_counter() - began)
    report = Progress(run.step, config.max_steps, loss.item(), base_loss.item(), rate, speed)
    with log.open("a") as file:
        file.write(json.dumps(report.__dict__) + "\n")
    if on_progress is not None:
        on_progress(report)


def losses(run: Run, config: TrainConfig, low: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """(error of the base y, error of one denoising step), both mean absolute errors; the latter 0 in the base phase."""
    condition = run.denoiser.condition(low)
    base = (condition.y - x0).abs().mean()
    if run.step < config.base_steps:
        return base, torch.zeros_like(base)
    eps, t = draws(config, run.step, x0, run.denoiser.process.timesteps)
    dreaming = run.step >= config.dream.start
    power = config.dream.power if dreaming else math.inf
    fixed: Condition = condition.detached()
    return base, dream_loss(run.denoiser, x0, fixed, eps, t, power=power).mean()


def draws(config: TrainConfig, step: int, x0: Tensor, timesteps: int) -> tuple[Tensor, Tensor]:
    """(eps like x0, t [B] whole in 1..T) of one step: every image has its own generator, seeded by its number."""
    eps, times = [], []
    for i in range(len(x0)):
        generator = torch.Generator().manual_seed(seed_of(config.seed, step * config.batch_size + i, 1))
        times.append(torch.randint(1, timesteps + 1, (1,), generator=generator).double())
        eps.append(torch.randn(x0.shape[1:], generator=generator))
    return torch.stack(eps).to(x0.device), torch.cat(times)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Warm-up and cosine, once for the base phase and once for the rest."""
    first, last = (0, config.base_steps) if step < config.base_steps else (config.base_steps, config.max_steps)
    warm = min(1.0, (step - first + 1) / max(1, config.warmup_steps))
    done = (step - first) / max(1, last - first)
    return config.learning_rate * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))


def keep(out: Path, run: Run, config: TrainConfig, facts: Mapping[str, Any]) -> None:
    """Write the checkpoint and the EMA's weights, each atomically."""
    state = {
        "net": run.denoiser.net.state_dict(),
        "ema": run.ema.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
    }
    buffer = BytesIO()
    torch.save(state, buffer)
    write_bytes_atomically(out / CHECKPOINT, buffer.getvalue())
    facts = {**facts, "train": to_mapping(config), "steps": run.step}
    save_weights(out / FILE_NAME, run.ema.module.state_dict(), config.model, facts=facts, dtype=torch.float32)


def restore(checkpoint: Path, run: Run) -> None:
    """Bring a fresh run to the state that `keep` wrote. Raises TrainingError for a damaged checkpoint."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        run.denoiser.net.load_state_dict(state["net"])
        run.ema.load_state_dict(state["ema"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step = int(state["step"])
    except (RuntimeError, KeyError, ValueError, OSError, EOFError) as error:
        raise TrainingError(f"{checkpoint}: damaged ({error}); start a new run in another folder") from None


def _halflife_average(halflife_steps: float) -> Callable[[TensorList, TensorList, Tensor | int], None]:
    """An exponential moving average that forgets half in `halflife_steps`, faster while it has seen little."""

    @torch.no_grad()
    def update(averaged: TensorList, current: TensorList, seen: Tensor | int) -> None:
        count = float(seen)
        decay = min(0.5 ** (1 / halflife_steps), (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    return update
