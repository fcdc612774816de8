"""`dreamsr study`: what DREAM changes, by one command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dreamsr.cli import completion, console
from dreamsr.errors import UsageError


def study(
    data: Annotated[str, typer.Option(help="Folder of photos to train on.", show_default=False)],
    val: Annotated[Path, typer.Option(help="Folder of other photos to measure on.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the study; a started one goes on.")] = Path("runs/study"),
    preset: Annotated[
        str, typer.Option(help="What to train: a preset or a .toml file.", autocompletion=completion.presets)
    ] = "sr3-x4-tiny",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE: any field of the configuration.")
    ] = None,
    powers: Annotated[str, typer.Option(help="DREAM's p of every arm, with commas; plain for none.")] = "plain,0,1,2,3",
    seeds: Annotated[int, typer.Option(help="Runs per arm.")] = 3,
    max_steps: Annotated[int, typer.Option(help="Training steps of every arm.")] = 2000,
    steps: Annotated[str, typer.Option(help="Sampling steps, with commas; all for T.")] = "5,20,100,all",
    stochasticity: Annotated[str, typer.Option(help="1 ancestral, as in the paper; 0 deterministic.")] = "1,0",
    crops: Annotated[int, typer.Option(help="Held-out crops that are measured.")] = 32,
    device: Annotated[
        str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.", autocompletion=completion.devices)
    ] = "auto",
) -> None:
    """Train one net plainly and with DREAM's p = 0, 1, 2, 3, and compare them at equal steps and at equal time.

    Leaves tables (study.md), all figures (study.json), curves (study.png) and every sample in OUT. Run it again to go
    on; arms may be divided among processes by --powers, and the whole command then gathers them.
    """
    from dreamsr.config import to_mapping
    from dreamsr.core.device import choose_compute
    from dreamsr.measure.machine import environment
    from dreamsr.study.report import write_report
    from dreamsr.study.study import OVERHEAD, StudyPlan
    from dreamsr.study.study import study as study_task
    from dreamsr.training.resolve import data_source, resolve

    options = {"max_steps": max_steps, "rate_schedule": "constant", "save_every": max(1, max_steps // 4)}
    config = resolve(preset, settings or (), options, {"enabled": None, "power": None, "start": None})
    config = replace(config, valid_every=max(1, max_steps // 4))
    most = config.model.process.timesteps
    plan = StudyPlan(
        config=config,
        powers=tuple(_power(text) for text in powers.split(",")),
        seeds=seeds,
        sample_steps=tuple(most if text == "all" else _whole(text) for text in steps.split(",")),
        stochasticities=tuple(_number(text, "--stochasticity") for text in stochasticity.split(",")),
        crops=crops,
    )
    rows = study_task(plan, data_source(data, None, None), val, out, device=device, on_notice=console.note)
    facts = {
        "environment": environment(choose_compute(device, config.precision)),
        "overhead": json.loads((out / OVERHEAD).read_text()),
        "train": to_mapping(config),
    }
    for path in write_report(rows, facts, out):
        console.note(f"written: {path}")
    console.say((out / "study.md").read_text())


def _power(text: str) -> float:
    return math.inf if text.strip() == "plain" else _number(text, "--powers")


def _whole(text: str) -> int:
    value = _number(text, "--steps")
    if value != int(value):
        raise UsageError(f"--steps has {text!r}, but it must be whole numbers, or all")
    return int(value)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} has {text!r}, but it must be numbers with commas") from None
