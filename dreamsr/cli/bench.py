"""`dreamsr bench`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import bench_view, console
from dreamsr.cli.options import Threads, checked_precision
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from dreamsr.bench.places import Places
    from dreamsr.bench.request import BenchRequest
    from dreamsr.bench.sweep import OnSweepProgress, SweepProgress

WITH, OTHERS, RULES, REPORTS = "Sweep", "Other tools", "Protocol", "Reports"

Data = Annotated[list[Path] | None, typer.Argument(help="Folders with large pictures, the truth.", show_default=False)]
Weights = Annotated[
    list[str] | None,
    typer.Option(help="Names, files, runs or Hub references with commas; NAME=REF renames.", rich_help_panel=WITH),
]
Steps = Annotated[
    str | None, typer.Option(help="Denoising steps, comma-separated; default: the weights'.", rich_help_panel=WITH)
]
Seeds = Annotated[int, typer.Option(help="How many seeds; spread over them is reported.", rich_help_panel=WITH)]
Seed = Annotated[int, typer.Option(help="The first seed.", rich_help_panel=WITH)]
Stochasticity = Annotated[
    str, typer.Option(help="0 deterministic to 1 ancestral sampling, comma-separated.", rich_help_panel=WITH)
]
Ablation = Annotated[
    tuple[str, str] | None,
    typer.Option(help="Two training runs, compared image by image.", metavar="RUN_A RUN_B", rich_help_panel=WITH),
]
Fidelity = Annotated[float, typer.Option(help="0 most texture, 1 most faithful.", rich_help_panel=WITH)]
Outputs = Annotated[
    list[str] | None, typer.Option(help="NAME=DIR: score the pictures of a folder.", rich_help_panel=OTHERS)
]
Commands = Annotated[
    list[str] | None,
    typer.Option("--command", help="'NAME=tool {input} {output}': run, time and score.", rich_help_panel=OTHERS),
]
Timeout = Annotated[float, typer.Option(help="Seconds a command may take per picture.", rich_help_panel=OTHERS)]
ProtocolName = Annotated[
    str, typer.Option("--protocol", help="standard, y-channel (as VDSR) or idm (squares).", rich_help_panel=RULES)
]
Scale = Annotated[int, typer.Option("--scale", "-s", help="How many times larger.", rich_help_panel=RULES)]
Low = Annotated[
    list[Path] | None, typer.Option(help="Folder of given small pictures, one for each of DATA.", rich_help_panel=RULES)
]
Degradation = Annotated[
    str,
    typer.Option(
        help="As in training (bicubic, everyday, photo, a .toml table), or blur-1.2+noise-10+jpeg-75.",
        rich_help_panel=RULES,
    ),
]
DegradationSeed = Annotated[int, typer.Option(help="Of what the degradation draws.", rich_help_panel=RULES)]
Square = Annotated[int, typer.Option(help="Side of the squares of --protocol idm, in px.", rich_help_panel=RULES)]
Lpips = Annotated[str, typer.Option(help="alex, vgg, dists, with commas, or none.", rich_help_panel=RULES)]
NoTruth = Annotated[
    bool,
    typer.Option(
        "--no-truth", help="DATA are small pictures: --html shows crops by every method.", rich_help_panel=RULES
    ),
]
Limit = Annotated[int | None, typer.Option(help="Only the first pictures of each set.", rich_help_panel=RULES)]
Speed = Annotated[
    bool,
    typer.Option("--speed", help="Time commands, cold and warm; without DATA nothing else.", rich_help_panel=REPORTS),
]
SpeedPx = Annotated[
    str, typer.Option("--speed-px", help="Sides of the pictures that are timed.", rich_help_panel=REPORTS)
]
Json = Annotated[Path | None, typer.Option("--json", help="The whole report; - for stdout.", rich_help_panel=REPORTS)]
Csv = Annotated[Path | None, typer.Option("--csv", help="One line per picture and variant.", rich_help_panel=REPORTS)]
Html = Annotated[
    Path | None, typer.Option("--html", help="One self-contained page with charts and crops.", rich_help_panel=REPORTS)
]
Plots = Annotated[Path | None, typer.Option(help="Folder for the charts as SVG and PNG.", rich_help_panel=REPORTS)]
Save = Annotated[Path | None, typer.Option(help="Folder for every enlarged picture.", rich_help_panel=REPORTS)]
CheckFile = Annotated[
    Path | None, typer.Option("--check", help="Run a report again and compare.", rich_help_panel=REPORTS)
]
RunCommands = Annotated[
    bool,
    typer.Option("--run-commands", help="With --check: run the commands of other tools too.", rich_help_panel=REPORTS),
]
Work = Annotated[Path | None, typer.Option(help="Where finished pictures are remembered; default: your cache folder.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute everything again.")]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")]
Precision = Annotated[str, typer.Option(help="auto, bf16, fp16 or fp32.")]
Tile = Annotated[int, typer.Option(help="Side of the tiles in px of the small picture.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def bench(
    context: typer.Context,
    data: Data = None,
    weights: Weights = None,
    steps: Steps = None,
    seeds: Seeds = 1,
    seed: Seed = 0,
    stochasticity: Stochasticity = "0",
    dream_ablation: Ablation = None,
    fidelity: Fidelity = 0.0,
    outputs: Outputs = None,
    commands: Commands = None,
    command_timeout: Timeout = 3600.0,
    protocol: ProtocolName = "standard",
    scale: Scale = 4,
    low: Low = None,
    degradation: Degradation = "bicubic",
    degradation_seed: DegradationSeed = 0,
    square: Square = 512,
    lpips: Lpips = "alex",
    no_truth: NoTruth = False,
    limit: Limit = None,
    speed: Speed = False,
    speed_px: SpeedPx = "128,256,512",
    json_file: Json = None,
    csv_file: Csv = None,
    html_file: Html = None,
    plots: Plots = None,
    save_outputs: Save = None,
    check_file: CheckFile = None,
    run_commands: RunCommands = False,
    work: Work = None,
    fresh: Fresh = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    tile: Tile = 512,
    quiet: Quiet = False,
) -> None:
    """Measure weights and other tools on pictures, as the field does, with uncertainty and time.

    Bicubic and Lanczos always take part. An interrupted run goes on where it stopped when it is started again.
    """
    from dreamsr.bench.places import Places, require_places

    places = Places(json_file, csv_file, html_file, plots)
    if check_file is not None:
        _check(check_file, work, places, run_commands=run_commands, quiet=quiet)
        return
    from dreamsr.bench.benchmark import bench as bench_task
    from dreamsr.bench.benchmark import read_by
    from dreamsr.bench.request import BenchRequest

    request = BenchRequest(
        data=tuple(str(folder.resolve()) for folder in data or ()),
        low=tuple(str(folder.resolve()) for folder in low or ()),
        weights=tuple(_absolute(name) for part in weights or () for name in part.split(",") if name),
        ablation=tuple(_absolute(run) for run in dream_ablation or ()),
        steps=_whole_numbers(steps or "", "--steps"),
        seeds=seeds,
        first_seed=seed,
        stochasticity=_numbers(stochasticity, "--stochasticity"),
        fidelity=fidelity,
        outputs=tuple(_named(_absolute(text), "--outputs NAME=DIR") for text in outputs or ()),
        commands=tuple(_named(text, "--command 'NAME=tool {input} {output}'") for text in commands or ()),
        command_timeout_s=command_timeout,
        protocol=protocol,
        degradation=str(Path(degradation).resolve()) if degradation.endswith(".toml") else degradation,
        degradation_seed=degradation_seed,
        scale=scale,
        square_px=square,
        limit=limit,
        lpips=() if lpips == "none" else tuple(lpips.split(",")),
        device=device,
        precision=checked_precision(precision),
        threads=threads,
        tile_px=tile,
        speed=speed,
        speed_px=_whole_numbers(speed_px, "--speed-px"),
    )
    if no_truth:
        _sheet(request, places, shlex.join(["dreamsr", *context.obj]), quiet=quiet)
        return
    require_places(places, read_by(request))
    with _progress(quiet) as show:
        report = bench_task(
            request,
            work=work,
            fresh=fresh,
            save_outputs=save_outputs,
            command_line=shlex.join(["dreamsr", *context.obj]),
            on_progress=show,
            on_notice=console.warn,
        )
    bench_view.show(report, json_file)
    bench_view.write(report, places)
    for failure in report.failures:
        console.fail(f"{failure.method} on {failure.dataset}: {failure.message}")
    if report.failed:
        raise typer.Exit(1)


def _sheet(request: BenchRequest, places: Places, command_line: str, *, quiet: bool) -> None:
    from dreamsr.bench.benchmark import read_by
    from dreamsr.bench.places import require_places
    from dreamsr.bench.sheet import sheet
    from dreamsr.disk import write_bytes_atomically

    if places.html is None or places.json or places.csv or places.plots or request.speed:
        raise UsageError("--no-truth makes a page of crops; give --html for it, and no other report")
    require_places(places, read_by(request), charts=False)
    with _progress(quiet) as show:
        found = sheet(request, command_line=command_line, on_progress=show, on_notice=console.warn)
    write_bytes_atomically(places.html, found.html)
    for failure in found.failures:
        console.fail(failure)
    if found.failures:
        raise typer.Exit(1)


def _check(path: Path, work: Path | None, places: Places, *, run_commands: bool, quiet: bool) -> None:
    from dreamsr.bench.check import check

    with _progress(quiet) as show:
        found = check(
            path, run_commands=run_commands, work=work, places=places, on_progress=show, on_notice=console.warn
        )
    bench_view.write(found.report, places)
    bench_view.say_verdict(found)
    if not found.holds:
        raise typer.Exit(1)


@contextmanager
def _progress(quiet: bool) -> Iterator[OnSweepProgress | None]:
    """A bar with the time left; every tenth of the work as a plain line where there is no terminal."""
    with console.bars(quiet=quiet) as bars:
        if bars is None:
            yield None if quiet else _plain_progress()
            return
        task = bars.add_task("measuring", total=None)

        def show(progress: SweepProgress) -> None:
            bars.update(
                task, description=progress.doing + _left(progress), completed=progress.done, total=progress.total
            )

        yield show


def _plain_progress() -> OnSweepProgress:
    told: set[tuple[int, int]] = set()

    def show(progress: SweepProgress) -> None:
        tenth = (progress.total, 10 * progress.done // max(1, progress.total))
        if tenth in told or progress.done == 0:
            return
        told.add(tenth)
        console.note(f"{progress.done} of {progress.total}: {progress.doing}{_left(progress)}")

    return show


def _left(progress: SweepProgress) -> str:
    return "" if progress.seconds_left is None else f", {_duration(progress.seconds_left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _absolute(text: str) -> str:
    """`text`, or NAME=`text`, with a path that exists made absolute: --check may be run from another folder."""
    name, equals, path = text.rpartition("=")
    return f"{name}{equals}{Path(path).resolve()}" if path and Path(path).exists() else text


def _named(text: str, form: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise UsageError(f"{form} was given as {text!r}; put a name and = in front")
    return name, rest


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}, but it must be numbers with commas between them") from None


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    values = _numbers(text, option)
    if any(value != int(value) for value in values):
        raise UsageError(f"{option} is {text!r}, but it must be whole numbers with commas between them")
    return tuple(int(value) for value in values)
