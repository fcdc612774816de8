"""Help that does not get where it should is an error, as any other output is."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from dreamsr.cli import console


class CarefulCommand(TyperCommand):
    """A command whose help is written to stdout, or OutputError says why not."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with console.on_stdout():
            super().format_help(ctx, formatter)


class CarefulGroup(TyperGroup):
    """The same for a command of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with console.on_stdout():
            super().format_help(ctx, formatter)
