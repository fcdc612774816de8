"""`dreamsr study`: what DREAM changes, by one command."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import completion, console
from dreamsr.cli.options import Threads, use_threads
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.study.arms import Studio
    from dreamsr.study.systems import Arm


def study(
    data: Annotated[str, typer.Option(help="Folder of photos to train on.", show_default=False)],
    val: Annotated[Path, typer.Option(help="Folder of other photos to measure on.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the study; a started one goes on.")] = Path("runs/study"),
    systems: Annotated[
        str, typer.Option(help="What to train, with commas: sr3-x0, sr3-centred, sr3-eps, resshift, idm.")
    ] = "sr3-x0,sr3-centred",
    powers: Annotated[str, typer.Option(help="DREAM's p of the arms, with commas; plain for none.")] = "plain,1",
    seeds: Annotated[int, typer.Option(help="Runs of each system and p.")] = 2,
    only: Annotated[
        str | None, typer.Option(help="Train and measure these arms alone, such as sr3-x0-p1-0; no tables.")
    ] = None,
    max_steps: Annotated[int, typer.Option(help="Training steps of every arm.")] = 10_000,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE: any field of the training of all arms.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Sampling steps, with commas; all for T.")] = "5,20,100,all",
    curve_steps: Annotated[int, typer.Option(help="Sampling steps of the curves over training.")] = 20,
    stochasticity: Annotated[float, typer.Option(help="1 ancestral, as in the paper; 0 deterministic.")] = 1.0,
    crops: Annotated[int, typer.Option(help="Held-out crops that are measured.")] = 64,
    dists: Annotated[bool, typer.Option("--dists", help="DISTS, too; fetches its VGG16 once (528 MB).")] = False,
    threads: Threads = None,
    device: Annotated[
        str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.", autocompletion=completion.devices)
    ] = "auto",
) -> None:
    """Train nets plainly and with DREAM, and compare them at equal training steps and at equal training time.

    Leaves tables (study.md), all figures (study.json), curves (study.png), every sample and a training run for each arm
    in OUT. Run it again to go on. Several processes may share OUT: each takes an arm that no other has.
    """
    from dreamsr.study.arms import MOST_STEPS, Studio, StudyPlan
    from dreamsr.study.study import prepare, train_and_measure
    from dreamsr.study.systems import SYSTEMS, Arm
    from dreamsr.training.resolve import data_source

    use_threads(threads)
    named = [name.strip() for name in systems.split(",")]
    unknown = next((name for name in named if name not in SYSTEMS), None)
    if unknown is not None:
        raise UsageError(f"--systems has {unknown!r}, but it must be among {', '.join(SYSTEMS)}")
    ways = product(range(seeds), named, [_power(text) for text in powers.split(",")])
    plan = StudyPlan(
        arms=tuple(Arm(system, power, seed) for seed, system, power in ways) if only is None else _named(only),
        settings=tuple(settings or ()),
        max_steps=max_steps,
        sample_steps=tuple(MOST_STEPS if text.strip() == "all" else _whole(text) for text in steps.split(",")),
        curve_steps=curve_steps,
        stochasticity=stochasticity,
        crops=crops,
    )
    judges = ("alex", "dists") if dists else ("alex",)
    studio = Studio(plan, data_source(data, None, None), out, device, judges, console.note)
    prepare(studio, val)
    elsewhere = train_and_measure(studio, plan.arms)
    if elsewhere:
        console.note(f"no tables yet: {len(elsewhere)} arms are not finished; run this again when they are")
    elif only is not None:
        console.note("measured; the same command without --only makes the tables")
    else:
        _show(studio)


def _show(studio: Studio) -> None:
    from dreamsr.core.device import choose_compute
    from dreamsr.measure.machine import environment
    from dreamsr.study.report import write_report
    from dreamsr.study.study import results

    found, arms, perceptual = results(studio)
    config = arms[0].config(studio.plan.max_steps, studio.plan.settings)
    facts = {
        "environment": environment(choose_compute(studio.device, config.precision)),
        "arms": [arm.name for arm in arms],
        "max_steps": studio.plan.max_steps,
        "settings": list(studio.plan.settings),
    }
    for path in write_report(studio, found, arms, facts, missing=perceptual.missing):
        console.note(f"written: {path}")
    console.say((studio.out / "study.md").read_text())


def _named(names: str) -> tuple[Arm, ...]:
    """The arms that `--only` names. Raises UsageError."""
    from dreamsr.study.systems import arm_called

    found = []
    for name in names.split(","):
        arm = arm_called(name.strip())
        if arm is None:
            raise UsageError(f"--only has {name!r}, but it must be SYSTEM-plain-SEED or SYSTEM-pP-SEED, as sr3-x0-p1-0")
        found.append(arm)
    return tuple(found)


def _power(text: str) -> float:
    if text.strip() == "plain":
        return math.inf
    value = _number(text, "--powers")
    if not 0 <= value < math.inf:
        raise UsageError(f"--powers has {text!r}, but it must be plain, or numbers from 0 up")
    return value


def _whole(text: str) -> int:
    value = _number(text, "--steps")
    if not value.is_integer():
        raise UsageError(f"--steps has {text!r}, but it must be whole numbers, or all")
    return int(value)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} has {text!r}, but it must be numbers with commas") from None
