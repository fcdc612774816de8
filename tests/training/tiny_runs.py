"""What the tests of training share: a tiny run, drawn pictures, and how to compare what two runs left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dreamsr.core.backbones.idm import IDMConfig
from dreamsr.core.backbones.refiner import RefinerConfig
from dreamsr.core.backbones.resshift import ResShiftConfig
from dreamsr.core.backbones.sr3 import SR3Config
from dreamsr.core.model import ModelConfig
from dreamsr.core.process import ProcessConfig
from dreamsr.data.sources import DataSource
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.request import Listener, RunRequest
from dreamsr.training.results.checkpoints import checkpoints, read_state
from dreamsr.training.results.validation import ValidRow
from dreamsr.training.train import train

TINY = TrainConfig(
    model=ModelConfig(sizes=RefinerConfig(encoder_channels=8, encoder_blocks=1, channels=(8, 12), blocks_per_level=1)),
    dream=DreamConfig(power=1.0, start=3),
    max_steps=8,
    base_steps=2,
    batch_size=2,
    crop_low_px=8,
    warmup_steps=2,
    save_every=4,
    precision="fp32",
)
GAUSSIAN = ProcessConfig(kind="gaussian", timesteps=50)
MODELS = {
    "refiner": TINY.model,
    "sr3": ModelConfig(
        backbone="sr3",
        prediction="eps",
        process=GAUSSIAN,
        sizes=SR3Config(channels=8, multipliers=(1, 2), blocks_per_level=1, attention_levels=(1,), groups=4),
    ),
    "idm": ModelConfig(
        backbone="idm",
        prediction="eps",
        process=GAUSSIAN,
        sizes=IDMConfig(
            encoder_channels=8,
            encoder_blocks=1,
            channels=8,
            multipliers=(1, 2),
            blocks_per_level=1,
            attention_levels=(1,),
            query_width=8,
            groups=4,
        ),
    ),
    "resshift": ModelConfig(
        backbone="resshift",
        process=ProcessConfig(timesteps=15, schedule="geometric", kappa=2.0),
        sizes=ResShiftConfig(
            channels=8, multipliers=(1, 2), blocks_per_level=1, swin_width=8, heads=2, window=4, dropout=0.1, groups=4
        ),
    ),
}
"""A tiny net of every family; all but the refiner with dropout."""


@contextmanager
def one_thread() -> Iterator[None]:
    """What is compared bit for bit, some of it in forked processes, is computed with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw_pictures(folder: Path, count: int = 3) -> DataSource:
    """A folder of waves in several colours, and its name as a source of training pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:96, 0:120]
    for i in range(count):
        waves = [np.sin(x / (3 + i) + c) + np.cos(y / (2 + c)) for c in range(3)]
        pixels = (np.stack(waves, axis=2) * 60 + 128).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return DataSource(data=str(folder))


def asked(config: TrainConfig, data: DataSource, out: Path, **options: Any) -> tuple[RunRequest, Listener]:
    """A request for a run on the CPU and its listener; `options` are fields of either."""
    heard = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
    return RunRequest(config, data, out, **{"device": "cpu", **options}), Listener(**heard)


def valid_row(steps: int, psnr: float, ssim: float, lpips: float | None) -> ValidRow:
    """What a validation found at so many steps."""
    return ValidRow(steps, {"psnr_y": psnr, "ssim_y": ssim, "lpips_alex": lpips})


def run(config: TrainConfig, data: DataSource, out: Path, **options: Any) -> Path:
    """Train on the CPU; the weights file."""
    return train(*asked(config, data, out, **options))


def checkpoint(out: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    return read_state(checkpoints(out)[0])


def flat(value: Any) -> dict[str, Any]:
    """Nested dicts and lists as one dict of paths."""
    if isinstance(value, dict):
        return {f"{key}/{k}": v for key, inner in value.items() for k, v in flat(inner).items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)))
    return {"": value}


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    a, b = flat(a), flat(b)
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Over all tensors of two states of one net; infinite where any holds no number."""
    worst = max(float((a[k].double() - b[k].double()).abs().max()) for k in a)
    return worst if math.isfinite(worst) else math.inf
