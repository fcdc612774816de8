"""`dreamsr train` and `dreamsr finetune`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console
from dreamsr.config import DreamConfig, TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dreamsr.tasks.train import Progress

LOG_EVERY = 100
"""Steps between two lines where no bar can be drawn."""

Data = Annotated[
    Path, typer.Option(help="Folder of photos of any sizes, searched with its subfolders.", show_default=False)
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-OF-DATA.", show_default=False)]
Dream = Annotated[bool, typer.Option("--dream/--no-dream", help="Train with DREAM (arXiv 2312.00210), or plainly.")]
Power = Annotated[
    float, typer.Option(help="DREAM's p: 0 rectifies fully, larger p keeps more detail of the truth near t = 0.")
]
Start = Annotated[int, typer.Option(help="Step from which DREAM is used; before it the estimate is still poor.")]
Steps = Annotated[int, typer.Option(help="Optimizer steps.")]
Batch = Annotated[int, typer.Option(help="Crops per step.")]
Crop = Annotated[int, typer.Option("--crop", help="Side of a crop in pixels of the small image.")]
Rate = Annotated[float, typer.Option(help="Highest learning rate; warm-up before it, a cosine after it.")]
Seed = Annotated[int, typer.Option(help="Same seed, same data: the same run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with the same settings.")]
Every = Annotated[int, typer.Option(help="Steps between checkpoints.")]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")]
Precision = Annotated[Literal["auto", "bf16", "fp32"], typer.Option(help="Number format of the net.")]


def train(
    data: Data,
    out: Out = None,
    dream: Dream = False,
    dream_power: Power = 1.0,
    dream_start: Start = 0,
    max_steps: Steps = 100_000,
    base_steps: Annotated[
        int | None, typer.Option(help="Steps for the base prediction alone; default a fifth.", show_default=False)
    ] = None,
    batch_size: Batch = 16,
    crop_low_px: Crop = 32,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    resume: Resume = False,
    save_every: Every = 500,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Train weights from a folder of photos.

    Leaves OUT/model.safetensors, which `dreamsr upscale --weights OUT` takes.
    """
    config = TrainConfig(
        dream=_dream(dream, dream_power, dream_start),
        max_steps=max_steps,
        base_steps=max_steps // 5 if base_steps is None else base_steps,
        batch_size=batch_size,
        crop_low_px=crop_low_px,
        learning_rate=learning_rate,
        seed=seed,
        save_every=save_every,
        precision=precision,
    )
    _run(config, data, out or Path("runs") / data.resolve().name, device=device, resume=resume)


def finetune(
    weights: Annotated[
        str, typer.Option(help="What to start from: a name, a file, a run or a Hub reference.", show_default=False)
    ],
    data: Data,
    out: Out = None,
    dream: Dream = True,
    dream_power: Power = 1.0,
    dream_start: Start = 0,
    max_steps: Steps = 2_000,
    batch_size: Batch = 16,
    crop_low_px: Crop = 32,
    learning_rate: Rate = 1e-4,
    seed: Seed = 0,
    resume: Resume = False,
    save_every: Every = 500,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Fit existing weights to your own pictures.

    Leaves OUT/model.safetensors, which `dreamsr upscale --weights OUT` takes. With --max-steps 0 the weights
    come back unchanged.
    """
    from dreamsr.files.hub import resolve_weights
    from dreamsr.files.weights import load_weights

    start = load_weights(resolve_weights(weights, on_notice=console.note))
    config = TrainConfig(
        model=start.config,
        dream=_dream(dream, dream_power, dream_start),
        max_steps=max_steps,
        batch_size=batch_size,
        crop_low_px=crop_low_px,
        learning_rate=learning_rate,
        seed=seed,
        save_every=save_every,
        precision=precision,
    )
    place = out or Path("runs") / f"{data.resolve().name}-finetuned"
    _run(config, data, place, device=device, resume=resume, start_from=start.net.state_dict())


def _dream(enabled: bool, power: float, start: int) -> DreamConfig:
    return DreamConfig(power=power if enabled else math.inf, start=start)


def _run(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    device: str,
    resume: bool,
    start_from: Mapping[str, Tensor] | None = None,
) -> None:
    from dreamsr.tasks.train import train as train_task

    with console.bars() as bars:
        task = bars.add_task("training", total=config.max_steps) if bars is not None else None

        def show(now: Progress) -> None:
            if bars is not None and task is not None:
                bars.update(task, completed=now.step, description=_words(now))
            elif now.step % LOG_EVERY == 0 or now.step == now.max_steps:
                console.note(f"step {now.step} of {now.max_steps}: {_words(now)}")

        path = train_task(
            config,
            data,
            out,
            device=device,
            resume=resume,
            start_from=start_from,
            on_progress=show,
            on_notice=console.note,
        )
    console.note(f"weights are in {path}; use them with: dreamsr upscale PICTURE --weights {out}")


def _words(now: Progress) -> str:
    return f"loss {now.loss:.4f}, rate {now.learning_rate:.1e}, {now.images_per_second:.1f} images/s"
