"""`dreamsr weights`: which weights there are, fetching, checking and publishing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import console
from dreamsr.errors import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dreamsr.weights.inventory import Holding
    from dreamsr.weights.registry import WeightsEntry

weights_app = typer.Typer(
    no_args_is_help=True,
    help="Which weights there are; fetch, check and publish them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="A name of `dreamsr weights list`.", show_default=False)]
AnyName = Annotated[
    str, typer.Argument(help="A name, a file, a run's folder, or user/repo[@revision][:file].", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of a table.")]


@contextmanager
def download_bar(*, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that appears with the first byte; yields what `resolve_weights` takes as `on_progress`."""
    with console.bars(quiet=quiet) as bars:
        tasks: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if bars is None:
                return
            if not tasks:
                tasks.append(bars.add_task("fetching (kB)"))
            bars.update(tasks[0], completed=done // 1000, total=total // 1000)

        yield show


@weights_app.command("list")
def list_(json: Json = False) -> None:
    """List the weights known by name, and what of them is on this machine.

    Example: dreamsr weights list
    """
    from dreamsr.weights.inventory import holdings

    found = holdings()
    if json:
        for holding in found:
            console.say_json(_as_json(holding))
        return
    rows = [
        (
            holding.entry.name,
            holding.state,
            f"x{holding.entry.scale}",
            f"{holding.entry.size_bytes / 1e6:.1f} MB",
            holding.entry.licence,
            holding.entry.description,
        )
        for holding in found
    ]
    console.table(("name", "state", "scale", "size", "licence", "description"), rows)


@weights_app.command()
def info(name: AnyName, json: Json = False) -> None:
    """Tell all about some weights: training, licence, metrics; for a file or a run what its header says.

    Example: dreamsr weights info clean-x4
    """
    from dreamsr.weights.inventory import holdings
    from dreamsr.weights.registry import describe_weights, table

    if describe_weights(name) is None:
        _show_file(name, json)
        return
    (holding,) = holdings([name])
    if json:
        console.say_json(_as_json(holding))
        return
    console.say(f"# {holding.entry.description}\n")
    console.say(table(holding.entry).rstrip())
    console.say(f"\n# state: {holding.state}" + (f", {holding.path}" if holding.path else ""))


@weights_app.command()
def pull(
    names: Annotated[
        list[str], typer.Argument(help="Names, or user/repo[@revision][:file].", metavar="NAME...", show_default=False)
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, no bar.")] = False,
) -> None:
    """Fetch weights now, so that they can be used offline later; asks the Hub anew for a branch.

    Example: dreamsr weights pull clean-x4
    """
    from dreamsr.weights.resolve import resolve_weights

    for name in names:
        with download_bar(quiet=quiet) as show:
            notice = _silent if quiet else console.note
            path = resolve_weights(name, on_notice=notice, on_progress=show, refresh=True)
        console.say(str(path))


@weights_app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Default: all.", metavar="[NAME...]", show_default=False)
    ] = None,
) -> None:
    """Check bundled and cached weights against weights.toml, byte for byte; exit 1 if any is wrong.

    Example: dreamsr weights verify
    """
    from dreamsr.weights.inventory import verify as verify_task

    verdicts = verify_task(names or ())
    for verdict in verdicts:
        if verdict.problem:
            console.fail(f"{verdict.name}: {verdict.problem}")
        else:
            console.say(f"{verdict.name}: ok, {verdict.path}")
    if not verdicts:
        console.note("nothing to check: none of these weights are on this machine")
    if any(verdict.problem for verdict in verdicts):
        raise typer.Exit(1)


@weights_app.command()
def path(name: AnyName) -> None:
    """Print where some weights lie, after fetching them if need be.

    Example: cp "$(dreamsr weights path clean-x4)" .
    """
    from dreamsr.weights.resolve import resolve_weights

    with download_bar() as show:
        found = resolve_weights(name, on_notice=console.note, on_progress=show)
    console.say(str(found))


@weights_app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Folder of a training run, or a .safetensors file.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="user/repo on the Hub; made if it is missing.", show_default=False)],
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Of the weights, such as apache-2.0.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="What they were trained on, in words.", show_default=False)],
    data_licence: Annotated[
        str, typer.Option("--data-licence", "--data-license", help="Licence of that data.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="Name in weights.toml; default from REPO.", show_default=False)] = "",
    description: Annotated[str, typer.Option(help="One line about them.", show_default=False)] = "",
    metrics: Annotated[
        Path | None, typer.Option(help="A report of `dreamsr bench --json`.", show_default=False)
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Photo for the card; default a chart.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Who may see a new repository.")] = False,
    stage: Annotated[
        Path | None, typer.Option(help="Write the repository into this folder, upload nothing.", show_default=False)
    ] = None,
) -> None:
    """Publish a training run on the Hub with a model card, and print its table for weights.toml.

    Example: dreamsr weights push runs/div2k me/photo-x4 --licence apache-2.0 --data DIV2K --data-licence research
    """
    from dreamsr.weights.push import require_access
    from dreamsr.weights.registry import table

    if stage is None:
        require_access(repo)
    from dreamsr.publishing.publish import About, publish, require_stage, write_stage
    from dreamsr.publishing.publish import stage as stage_task

    if stage is not None:
        require_stage(stage)
    about = About(licence, data, data_licence, name, description, metrics=metrics, sample=sample)
    staged = stage_task(run, repo, about)
    entry = staged.entry
    if stage is not None:
        write_stage(staged, stage)
        console.note(f"wrote {stage}; nothing was uploaded, so the table below names no repository yet")
    else:
        console.note(f"uploading {entry.size_bytes / 1e6:.1f} MB to {repo}")
        entry = publish(staged, private=private)
        console.note(f"published {repo} at {entry.revision}; add the table below to weights.toml")
    console.say(table(entry).rstrip())


def _silent(_: str) -> None:
    """For --quiet."""


def _show_file(name: str, json: bool) -> None:
    from dreamsr.config import to_mapping
    from dreamsr.weights.inventory import describe_file

    place, config, facts = describe_file(name)
    found = {"path": str(place), "config": to_mapping(config), "facts": dict(facts)}
    if json:
        console.say_json(found)
        return
    console.say(f"path: {place}\nbackbone: {config.backbone}\nscale: {config.scale}\nprediction: {config.prediction}")
    for key, value in facts.items():
        console.say(f"{printable(key)}: {printable(str(value))}")


def _as_json(holding: Holding) -> dict[str, object]:
    entry: WeightsEntry = holding.entry
    place = str(holding.path) if holding.path else None
    return {**dataclasses.asdict(entry), "metrics": list(entry.metrics), "state": holding.state, "path": place}
