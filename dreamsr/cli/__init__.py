"""The command line: each command parses, calls one task and shows the result.

Exit codes: 0 done, 1 something could not be done, 2 the request makes no sense, 129, 130 and 143 ended from outside
(the terminal closed, ctrl-C, SIGTERM), 141 the reader of our output went away.
Heavy libraries are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

import dreamsr
from dreamsr.cli import console
from dreamsr.cli.bench import bench
from dreamsr.cli.doctor import doctor
from dreamsr.cli.finetune import finetune
from dreamsr.cli.habits import hint, with_command
from dreamsr.cli.serve import serve
from dreamsr.cli.study import study
from dreamsr.cli.train import train
from dreamsr.cli.upscale import upscale
from dreamsr.cli.weights import weights_app
from dreamsr.errors import DreamsrError, UsageError
from dreamsr.processes import wait_passively

INTERRUPTED, BROKEN_PIPE = 130, 141
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RANK_0_SPEAKS_SECONDS = 2.0

app = typer.Typer(
    name="dreamsr",
    cls=console.CarefulGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.say(f"dreamsr {dreamsr.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Enlarge pictures with a small diffusion model, on any machine; train and measure such models."""


app.command()(upscale)
app.command()(serve)
app.command()(train)
app.command()(finetune)
app.command()(bench)
app.command()(study)
app.command()(doctor)
app.add_typer(weights_app, name="weights", cls=console.CarefulGroup)
for command in (*app.registered_commands, *weights_app.registered_commands):
    command.cls = console.CarefulCommand


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` if none is given) and return the exit code; prints no traceback.

    DREAMSR_TRACEBACK=1 lets every exception through, for bug reports.
    """
    wait_passively()
    _collect_less()
    _occupy_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    code = _guarded(arguments)
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except OSError as error:
        if code == 0:
            console.fail(str(console.stdout_failure(error)))
        code = code or 1
        _silence_stdout()
    if code == BROKEN_PIPE:
        _silence_stdout()
    return code


def _collect_less() -> None:
    """Look for garbage after 50,000 new objects instead of 700, and not at the end, when all memory is given back.

    Loading torch makes a million objects that stay: looking through them takes half a second of a short command.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def _occupy_descriptors() -> None:
    """Open what was closed (`>&-`), or the next file would get its number, and messages of libraries with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _guarded(arguments: Sequence[str] | None) -> int:
    try:
        return _run(arguments)
    except DreamsrError as error:
        if not (isinstance(error, UsageError) and _rank_0_tells_it()):
            console.fail(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        return _explain(error)


def _run(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    words = with_command(sys.argv[1:] if arguments is None else arguments, getattr(command, "commands", ()))
    try:
        # A command that reports its own command line finds it as its context's `obj`.
        result = command.main(args=words, prog_name="dreamsr", standalone_mode=False, obj=words)
    except SystemExit as stop:
        # Typer turns a broken pipe into exit code 1.
        if isinstance(stop.__context__, BrokenPipeError):
            return BROKEN_PIPE
        return stop.code if isinstance(stop.code, int) else 1
    if result == INTERRUPTED:  # typer has made a code of the exception
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """What typer says about a wrong command line, or an error that is ours."""
    describe, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
    if describe is not None and isinstance(code, int):  # a typer or click exception, whichever copy it came from
        if type(error).__name__ == "NoArgsIsHelpError":
            console.note("")
            console.err().print(describe())
        elif not _rank_0_tells_it():
            console.fail(_with_hint(error, describe()))
        return code
    if os.environ.get("DREAMSR_TRACEBACK"):
        raise error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        console.fail(f"standard output or a temporary file cannot be written: {error.strerror}; make room first")
        return 1
    console.fail(
        f"internal error ({type(error).__name__}: {error}); please report it, "
        "with what DREAMSR_TRACEBACK=1 shows when you run the command again"
    )
    return 1


def _with_hint(error: Exception, text: str) -> str:
    """What typer says of an unknown option, and what is meant by it elsewhere."""
    option, command = getattr(error, "option_name", None), getattr(error, "cmd", None)
    more = hint(getattr(command, "name", None) or "dreamsr", option) if isinstance(option, str) else ""
    return f"{text.rstrip('.')}; {more}" if more else text


def _rank_0_tells_it() -> bool:
    """Whether this is one of several processes with one command line, of which the first says what is wrong with it.

    Launchers end all processes when one has failed: the others wait, so that the first can speak.
    """
    rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdecimal() and world.isdecimal() and 0 < int(rank) < int(world)):
        return False
    time.sleep(RANK_0_SPEAKS_SECONDS)
    return True


def _silence_stdout() -> None:
    """Point stdout at nothing, or the interpreter would complain about the closed pipe when it ends."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdout.fileno())
