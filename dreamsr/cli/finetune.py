"""`dreamsr finetune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import completion, console
from dreamsr.cli.options import Threads, use_threads
from dreamsr.cli.train import (
    DATA,
    Accumulate,
    Batch,
    Crop,
    Data,
    Degradation,
    Device,
    Dream,
    DryRun,
    Every,
    Finish,
    Held,
    Large,
    Out,
    Power,
    Precision,
    Rate,
    Resume,
    Seed,
    Settings,
    Small,
    Start,
    Steps,
    Workers,
    show_trial,
)
from dreamsr.cli.train_view import train_view
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.training.finetuning.before_after import FinetuneReport
    from dreamsr.training.results.validation import ValidRow


def finetune(
    weights: Annotated[
        str,
        typer.Option(
            help="What to start from: a name, a file, a run or a Hub reference.",
            autocompletion=completion.weights,
            show_default=False,
        ),
    ],
    data: Data = None,
    hr: Large = None,
    lr: Small = None,
    degradation: Degradation = None,
    crop_low_px: Crop = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Share of the pictures that is kept to measure on; default 0.1.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    val: Held = None,
    settings: Settings = None,
    dream: Dream = None,
    dream_power: Power = None,
    dream_start: Start = None,
    finish: Finish = None,
    out: Out = None,
    max_steps: Steps = None,
    batch_size: Batch = None,
    accumulate: Accumulate = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    resume: Resume = False,
    save_every: Every = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
    threads: Threads = None,
    dry_run: DryRun = False,
) -> None:
    """Fit existing weights to your own pictures, and say what that gained there and cost elsewhere.

    2,000 steps with DREAM at a low rate unless told otherwise, with the loss and p that the weights were trained with:
    enough for 10 to 500 pictures. Some of them are held out, or others given by --val, and measured before and after.
    Leaves OUT/model.safetensors, which `dreamsr upscale --weights OUT` takes.
    """
    from dreamsr.data.recipes import degradation_table
    from dreamsr.processes import is_first
    from dreamsr.training.finetuning.finetune import finetune as finetune_task
    from dreamsr.training.finetuning.finetune import suited
    from dreamsr.training.request import Listener, RunRequest
    from dreamsr.training.resolve import altered, data_source, finish_table, name_of
    from dreamsr.training.start import load_start

    use_threads(threads)
    options = {
        **degradation_table(degradation),
        **finish_table(finish),
        "crop_low_px": crop_low_px,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "seed": seed,
        "save_every": save_every,
        "precision": precision,
    }
    asked = {"enabled": dream, "power": dream_power, "start": dream_start}
    config = altered(suited(weights, Listener(on_notice=console.note)), settings or (), options, asked)
    if held_out is not None and val is not None:
        raise UsageError("--held-out and --val both say what to measure on; choose one")
    if dry_run:
        show_trial(replace(config, model=load_start(weights).model), device)
        return
    source = data_source(data, hr, lr)
    place = out or Path("runs") / f"{name_of(source)}-finetuned"
    request = RunRequest(config, source, place, device=device, resume=resume, workers=workers, valid=val)
    with train_view() as listener:
        report = finetune_task(request, weights, share=held_out, listener=listener)
    if not is_first():
        return
    _show(report)
    console.note(f"weights are in {report.weights}; use them with: dreamsr upscale PICTURE --weights {place}")


def _show(report: FinetuneReport) -> None:
    """What fine-tuning changed, as a table; a warning for what it made worse."""
    rows = [
        (row.pictures, str(row.steps), _figures(row.bicubic), _figures(row.before), _figures(row.after))
        for row in report.rows
    ]
    shown = dict.fromkeys(metric for row in report.rows for metric in row.after.figures)
    title = " / ".join(metric.title for metric in shown)
    console.table(("pictures", "steps", "bicubic", "before", "after"), rows, title=title)
    for row in report.rows:
        if row.worse:
            console.warn(f"worse than before on the {row.pictures} picture(s) at {row.steps} steps")


def _figures(row: ValidRow) -> str:
    return " / ".join(metric.text(value) for metric, value in row.figures.items())
