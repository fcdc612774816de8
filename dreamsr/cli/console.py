"""The only module that prints. Results go to stdout; progress, notes and errors to stderr.

`out()` and `err()` are rich consoles made on first use; both honour NO_COLOR, TERM=dumb and pipes, and take
texts literally (file names may hold brackets). Bars are drawn on terminals only, logs get plain lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from dreamsr.cli.spelling import as_typed
from dreamsr.disk import json_text
from dreamsr.errors import OutputError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


@cache
def out() -> Console:
    """The console on stdout."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console on stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1; main() knows better

    return Plain(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def fail(message: str) -> None:
    """`error: <one line>` on stderr."""
    _line("error: ", message, "bold red")


def warn(message: str) -> None:
    """`warning: <one line>` on stderr."""
    _line("warning: ", message, "yellow")


def note(message: str) -> None:
    """One line on stderr, for people rather than for programs."""
    _line("", message, "")


def _line(label: str, message: str, style: str) -> None:
    from rich.text import Text

    try:
        err().print(Text.assemble((label, style), printable(as_typed(message))))
    except BrokenPipeError:
        raise
    except OSError:  # nobody can be told: no reason to lose what is done
        with suppress(OSError):
            sys.stderr.close()


@contextmanager
def on_stdout() -> Iterator[None]:
    """What is written to stdout in the block gets there, or OutputError says why not."""
    if sys.stdout is None:
        raise OutputError("standard output is closed, and what should go there is lost; send it to a file or a pipe")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_failure(error) from None


def stdout_failure(error: OSError) -> OutputError:
    """What to say where stdout cannot be written."""
    return OutputError(f"standard output cannot be written: {error.strerror or error}; send it to another place")


def say(text: str) -> None:
    """Text on stdout, as it is. Raises OutputError."""
    with on_stdout():
        out().print(text)


def say_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, plain ASCII, in one write and flushed at once. Raises OutputError."""
    with on_stdout():
        sys.stdout.write(json_text(value) + "\n")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, header: bool = True
) -> None:
    """A table on stdout; plain aligned columns where stdout is no terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = out()
    style = box.SIMPLE_HEAD if console.is_terminal and header else None
    drawn = Table(*columns, title=title, title_justify="left", box=style, show_header=header)
    for row in rows:
        drawn.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    # A pipe has no width: rich would assume 80 columns and cut the cells.
    with on_stdout():
        console.print(drawn, width=None if console.is_terminal else 10_000, no_wrap=not console.is_terminal)


class CarefulCommand(TyperCommand):
    """A command whose help is written to stdout, or OutputError says why not."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with on_stdout():
            super().format_help(ctx, formatter)


class CarefulGroup(TyperGroup):
    """The same for a command of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with on_stdout():
            super().format_help(ctx, formatter)


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars | None]:
    """Progress bars on stderr with the time left, or None where they would be noise (pipes, logs, quiet)."""
    console = err()
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    progress = Progress(*columns, console=console, transient=True)
    progress.start()
    try:
        yield progress
    finally:
        with suppress(OSError, ValueError):  # the terminal has closed; how the work ended must not be lost for that
            progress.stop()
