"""`dreamsr train` and `dreamsr finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import completion, console
from dreamsr.cli.habits import folder_not_rate
from dreamsr.cli.options import MACHINE, Threads, use_threads
from dreamsr.cli.train_view import train_view
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.training.config import TrainConfig
    from dreamsr.training.request import RunRequest

DATA, DREAM, RUN = "Data", "DREAM", "Run"

Data = Annotated[
    str | None,
    typer.Option(
        help="Folder of photos of any sizes, with its subfolders; .tar shards; or hub:user/name, streamed.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Large = Annotated[
    Path | None, typer.Option("--hr", help="Folder of large pictures of a paired set.", rich_help_panel=DATA)
]
Small = Annotated[
    Path | None,
    typer.Option("--lr", help="Folder of their small versions.", callback=folder_not_rate, rich_help_panel=DATA),
]
Degradation = Annotated[
    str | None,
    typer.Option(
        help="How small pictures are made: bicubic; everyday, nearly clean to bad; photo, harder; or a .toml table.",
        rich_help_panel=DATA,
    ),
]
Crop = Annotated[
    int | None, typer.Option("--crop", help="Side of a crop in px of the small image.", rich_help_panel=DATA)
]
Held = Annotated[
    Path | None, typer.Option("--val", help="Folder of pictures to measure on, never trained on.", rich_help_panel=DATA)
]
Dream = Annotated[
    bool | None,
    typer.Option("--dream/--no-dream", help="Train with DREAM (arXiv 2312.00210), or plainly.", rich_help_panel=DREAM),
]
Power = Annotated[
    float | None,
    typer.Option(
        help="DREAM's p: 0 rectifies fully, larger keeps more detail; default 1, ResShift 3.", rich_help_panel=DREAM
    ),
]
Start = Annotated[
    int | None,
    typer.Option(help="Step from which DREAM is used; before it the estimate is still poor.", rich_help_panel=DREAM),
]
Finish = Annotated[
    int | None,
    typer.Option(
        help="How many steps, the last, finish the net on its own rollouts; --set finish.FIELD=VALUE.",
        rich_help_panel=RUN,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of the run; default runs/NAME-OF-DATA.", show_default=False, rich_help_panel=RUN),
]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.", rich_help_panel=RUN)]
Batch = Annotated[int | None, typer.Option(help="Crops per step and process.", rich_help_panel=RUN)]
Accumulate = Annotated[
    int | None, typer.Option(help="Batches per step, where memory holds no larger one.", rich_help_panel=RUN)
]
Rate = Annotated[float | None, typer.Option(help="Highest learning rate.", rich_help_panel=RUN)]
Seed = Annotated[int | None, typer.Option(help="Same seed, same data: the same run.", rich_help_panel=RUN)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say how quick a step is here: plain, with DREAM, finishing.",
        rich_help_panel=RUN,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out: the same settings; more steps, and how often it saves, may change.",
        rich_help_panel=RUN,
    ),
]
Every = Annotated[int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=RUN)]
ValidEvery = Annotated[int | None, typer.Option(help="Steps between validations.", rich_help_panel=RUN)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="FIELD=VALUE: any field of the configuration, again and again.", rich_help_panel=RUN),
]
Device = Annotated[
    str,
    typer.Option(help="auto, cuda, cuda:1, mps or cpu.", autocompletion=completion.devices, rich_help_panel=MACHINE),
]
Precision = Annotated[
    Literal["auto", "bf16", "fp32"] | None, typer.Option(help="Number format of the net.", rich_help_panel=MACHINE)
]
Workers = Annotated[
    int,
    typer.Option(
        min=0, help="Processes that prepare crops; the result does not depend on it.", rich_help_panel=MACHINE
    ),
]


def train(
    data: Data = None,
    hr: Large = None,
    lr: Small = None,
    degradation: Degradation = None,
    crop_low_px: Crop = None,
    val: Held = None,
    preset: Annotated[
        str,
        typer.Option(
            help="What to train: sr3-x4, idm-continuous, resshift-x4, ...; or a .toml file.",
            autocompletion=completion.presets,
            rich_help_panel=RUN,
        ),
    ] = "refiner-x4",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Begin with these: a name, a file, a run or a Hub reference. The net is theirs, not the preset's.",
            autocompletion=completion.weights,
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Train the preset's own net, and take from --weights what fits it by name and shape.",
            rich_help_panel=RUN,
        ),
    ] = False,
    settings: Settings = None,
    dream: Dream = None,
    dream_power: Power = None,
    dream_start: Start = None,
    finish: Finish = None,
    out: Out = None,
    max_steps: Steps = None,
    base_steps: Annotated[
        int | None,
        typer.Option(help="The refiner's steps for its base prediction alone; default a fifth.", rich_help_panel=RUN),
    ] = None,
    batch_size: Batch = None,
    accumulate: Accumulate = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    resume: Resume = False,
    save_every: Every = None,
    valid_every: ValidEvery = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
    threads: Threads = None,
    dry_run: DryRun = False,
) -> None:
    """Train a diffusion super-resolution model on pictures.

    Leaves OUT/model.safetensors, which `dreamsr upscale --weights OUT` takes. Unless told otherwise, everything is as
    the preset says. Stopped by ctrl-C, SIGTERM or SIGHUP, a run goes on with --resume.
    """
    from dreamsr.data.recipes import degradation_table
    from dreamsr.training.request import RunRequest
    from dreamsr.training.resolve import data_source, finish_table, name_of, resolve
    from dreamsr.training.start import load_start

    use_threads(threads)
    options = {
        **degradation_table(degradation),
        **finish_table(finish),
        "crop_low_px": crop_low_px,
        "max_steps": max_steps,
        "base_steps": base_steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "seed": seed,
        "save_every": save_every,
        "valid_every": valid_every,
        "precision": precision,
    }
    asked = {"enabled": dream, "power": dream_power, "start": dream_start}
    start = None if weights is None else load_start(weights, on_notice=console.note)
    if partial and start is None:
        raise UsageError("--partial takes over a part of some weights; say which by --weights")
    model = None if start is None or partial else start.model
    config = resolve(preset, settings or (), options, asked, model=model)
    if partial and start is not None:
        start = start.fitted(config.model, on_notice=console.note)
    if dry_run:
        show_trial(config, device)
        return
    source = data_source(data, hr, lr)
    place = out or Path("runs") / name_of(source)
    _run(RunRequest(config, source, place, device=device, resume=resume, workers=workers, valid=val, start=start))


def show_trial(config: TrainConfig, device: str) -> None:
    """Take a few steps of each kind that a run would take, and say how quick they are and how large the net is."""
    from dreamsr.cli.train_view import duration
    from dreamsr.training.trial import try_steps

    found = try_steps(config, device=device)
    where = f"{found.device}, {found.dtype}" + (f", {found.threads} threads" if found.device == "cpu" else "")
    console.say(f"{config.model.backbone}, {found.parameters:,} parameters, batches of {found.batch_size} ({where})")
    stages = [("without DREAM", found.plain_seconds, config.finish_start)]
    stages.append(("with DREAM", found.dream_seconds, config.finish_start))
    if found.finish_seconds is not None:
        stages.append(("finishing", found.finish_seconds, config.finish.steps))
    for name, seconds, steps in stages:
        whole = duration(seconds * config.accumulate * steps)
        speed = found.batch_size / seconds
        console.say(f"{name}: {speed:.2f} images/s, {whole} for {steps:,} steps")
    console.say(f"a step with DREAM takes {found.ratio:.2f} times one without")


def _run(request: RunRequest) -> None:
    from dreamsr.processes import is_first
    from dreamsr.training.train import train as train_task

    with train_view() as listener:
        path = train_task(request, listener)
    if is_first():
        console.note(f"weights are in {path}; use them with: dreamsr upscale PICTURE --weights {request.out}")
