"""Does DREAM help? The same net trained plainly and with several p, at equal steps and at equal time.

Every arm starts from the same seed and sees the same crops, times and noise. A step with DREAM costs more, so the
plain arm is trained on after its last common step until it has had as much time as the others (`plain, equal time`).
All are sampled in several numbers of steps on the same held-out crops. Everything is kept in a folder: an interrupted
study goes on, and arms may be divided among machines that share it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.model import build_denoiser
from dreamsr.core.noise import NoiseField, seed_of
from dreamsr.core.pixels import from_tensor
from dreamsr.core.samplers import restore
from dreamsr.data.sources import DataSource, open_source
from dreamsr.disk import ensure_folder, write_bytes_atomically
from dreamsr.errors import UsageError
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.metrics import METRICS, PEAK, Comparison
from dreamsr.measure.score import Scores, means, score
from dreamsr.pictures.read import from_pil
from dreamsr.pictures.write import write_picture
from dreamsr.training.config import TrainConfig
from dreamsr.training.request import RunRequest
from dreamsr.training.results.places import require_place
from dreamsr.training.train import train
from dreamsr.training.trial import try_steps
from dreamsr.weights.file import load_weights

OVERHEAD = "overhead.json"
ROWS = "rows.json"
TRUTH = "truth"
EVALUATED_AT_ONCE = 16
"""Crops per batch in sampling."""


@dataclass(frozen=True)
class StudyPlan:
    """What a study trains and measures. `config` is the plain arm's; powers may hold infinity, the plain arm."""

    config: TrainConfig
    powers: tuple[float, ...]
    seeds: int
    sample_steps: tuple[int, ...]
    stochasticities: tuple[float, ...]
    crops: int

    def __post_init__(self) -> None:
        if not self.powers or not self.sample_steps or not self.stochasticities:
            raise UsageError("a study needs at least one `powers`, `sample_steps` and `stochasticities`")
        if self.seeds < 1 or self.crops < 1:
            raise UsageError(f"`seeds` is {self.seeds} and `crops` {self.crops}, but both must be 1 or more")
        most = self.config.model.process.timesteps
        if not all(1 <= steps <= most for steps in self.sample_steps):
            raise UsageError(f"`sample_steps` is {self.sample_steps}, but each must be in 1..{most}")
        if self.config.rate_schedule != "constant":
            raise UsageError("a study needs rate_schedule = constant: its arms are of different lengths")


@dataclass(frozen=True)
class Row:
    """What one arm gave: means over the crops. lpips_alex is None where LPIPS is missing; consistency is MSE x 1e5."""

    arm: str
    seed: int
    train_steps: int
    train_seconds: float
    steps: int
    stochasticity: float
    psnr_y: float
    ssim_y: float
    lpips_alex: float | None
    consistency: float


FIGURES = tuple(METRICS[field.name] for field in fields(Row) if field.name in METRICS)
"""The metrics of a row."""

OnNotice = Callable[[str], None]


def study(
    plan: StudyPlan, data: DataSource, held_out: Path, out: Path, *, device: str, on_notice: OnNotice
) -> list[Row]:
    """Train and measure every arm that is not finished; return the rows of all arms, finished ones too.

    Raises OutputError where `out` cannot be written or would destroy what is read.
    """
    folders = [_arm_folder(out, power, seed).name for seed in range(plan.seeds) for power in plan.powers]
    require_place(out, data, held_out, written=(TRUTH, *folders))
    held = crops_of(plan, held_out)
    write_truths(out / TRUTH, held)
    ratio = overhead(plan.config, out / OVERHEAD, device)
    on_notice(f"a step with DREAM takes {ratio:.2f} times one without")
    rows: list[Row] = []
    for seed in range(plan.seeds):
        for power in plan.powers:
            config = replace(plan.config, seed=seed, dream=replace(plan.config.dream, power=power))
            arm = RunRequest(config, data, _arm_folder(out, power, seed), device=device, valid=held_out)
            rows += run_arm(plan, arm, ratio, held, on_notice=on_notice)
    return rows


def arm_name(power: float) -> str:
    """`plain` or `p=1`."""
    return "plain" if math.isinf(power) else f"p={power:g}"


def _arm_folder(out: Path, power: float, seed: int) -> Path:
    return out / f"{arm_name(power).replace('=', '-')}-seed{seed}"


def run_arm(
    plan: StudyPlan, arm: RunRequest, ratio: float, held: Sequence[tuple[Tensor, Tensor]], *, on_notice: OnNotice
) -> list[Row]:
    """The rows of one power and seed; the plain arm gives those of its longer training too."""
    config, folder = arm.config, arm.out
    power, seed = config.dream.power, config.seed
    kept = folder / ROWS
    if kept.exists():
        return [Row(**row) for row in json.loads(kept.read_text())]
    lengths = {arm_name(power): config.max_steps}
    if math.isinf(power):
        lengths["plain, equal time"] = round(config.max_steps * max(1.0, ratio))
    rows: list[Row] = []
    for name, steps in lengths.items():
        on_notice(f"{name}, seed {seed}: training to step {steps}")
        resume = (folder / "config.json").exists()
        path = train(replace(arm, config=replace(config, max_steps=steps), resume=resume))
        seconds = trained_seconds(folder, steps)
        weights = load_weights(path)
        compute = choose_compute(arm.device, config.precision)
        denoiser = build_denoiser(config.model, weights.net.to(compute.device), compute=compute)
        for stochasticity in plan.stochasticities:
            for count in plan.sample_steps:
                place = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{count}-eta{stochasticity:g}"
                scores: dict[str, Any] = {**measure(denoiser, held, count, stochasticity, place)}
                rows.append(Row(name, seed, steps, seconds, count, stochasticity, **scores))
    write_bytes_atomically(kept, json.dumps([asdict(row) for row in rows], indent=1).encode())
    return rows


def crops_of(plan: StudyPlan, held_out: Path) -> list[tuple[Tensor, Tensor]]:
    """The same crops of the held-out pictures for every arm, (low, x0)."""
    pairs = open_source(DataSource(data=str(held_out)), replace(plan.config, seed=0).crops)
    return [pairs[number] for number in range(plan.crops)]


def write_truths(folder: Path, held: Sequence[tuple[Tensor, Tensor]]) -> None:
    """The crops as files, so that any other judge can score the samples beside them."""
    for number, (_, x0) in enumerate(held):
        _write(folder / f"{number:03d}.png", x0)


def overhead(config: TrainConfig, kept: Path, device: str) -> float:
    """Time of a training step with DREAM over one without, on this machine; remembered in `kept`."""
    if not kept.exists():
        found = try_steps(config, device=device)
        write_bytes_atomically(kept, json.dumps({"ratio": found.ratio, **asdict(found)}).encode())
    return float(json.loads(kept.read_text())["ratio"])


def trained_seconds(folder: Path, steps: int) -> float:
    """Time that the steps of a run took, from its log."""
    config = json.loads((folder / "config.json").read_text())["train"]
    images = config["batch_size"] * config["accumulate"]
    speeds = [json.loads(line)["images_per_second"] for line in (folder / "log.jsonl").read_text().splitlines()]
    return math.fsum(images / float(speed) for speed in speeds[:steps])


def measure(
    denoiser: Denoiser, held: Sequence[tuple[Tensor, Tensor]], steps: int, stochasticity: float, folder: Path
) -> Scores:
    """The mean figures of samples of all crops, which are written into `folder`."""
    perceptual = Perceptual(("alex",))
    scores: list[Scores] = []
    for first in range(0, len(held), EVALUATED_AT_ONCE):
        part = list(range(first, min(first + EVALUATED_AT_ONCE, len(held))))
        images = sampled(denoiser, torch.stack([held[i][0] for i in part]), part, steps, stochasticity)
        for i, image in zip(part, images, strict=True):
            _write(folder / f"{i:03d}.png", image)
            scores.append(score(compared(image, *held[i], denoiser.scale), perceptual, FIGURES))
    return means(scores)


def sampled(denoiser: Denoiser, low: Tensor, numbers: Sequence[int], steps: int, stochasticity: float) -> Tensor:
    """low [B,3,p,p] -> x0 [B,3,s*p,s*p] in [-1,1] on the CPU; crop `number` always meets the same noise."""
    device, side = denoiser.compute.device, denoiser.scale * low.shape[-1]
    fields = [NoiseField(seed_of(number, 7)) for number in numbers]

    def noise(step: int) -> Tensor:
        return torch.stack([field.window(step, 0, 0, side, side) for field in fields]).to(device)

    with torch.inference_mode():
        small = low.to(device, memory_format=torch.channels_last)
        return restore(denoiser, small, steps=steps, noise=noise, stochasticity=stochasticity).float().cpu()


def compared(image: Tensor, low: Tensor, x0: Tensor, scale: int) -> Comparison:
    """One sample beside its truth x0 and its input, of which the input is not rounded; all [3,H,W] in [-1,1]."""
    pixels, truth = (np.asarray(from_tensor(one), np.uint8) for one in (image, x0))
    return Comparison.of(pixels, truth, (low.double() + 1) * (PEAK / 2), scale)


def _write(path: Path, image: Tensor) -> None:
    from PIL import Image

    ensure_folder(path.parent)
    write_picture(path, from_pil(Image.fromarray(np.asarray(from_tensor(image), np.uint8))))
