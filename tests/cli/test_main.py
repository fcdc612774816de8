"""One handler for everything that can go wrong: one line, the right exit code, no traceback."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

import dreamsr
from dreamsr import cli
from dreamsr.errors import DreamsrError, OutputError, UsageError
from tests.test_readme import COMMAND, leaf_commands

PYTHON = [sys.executable, "-m", "dreamsr"]


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYTHON, *arguments], capture_output=True, text=True, timeout=120, **more)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dreamsr {dreamsr.__version__}\n"
    for arguments in (["--help"], ["-h"], ["upscale", "--help"], ["doctor", "-h"]):
        assert cli.main(arguments) == 0
        assert "Usage" in capsys.readouterr().out


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert "Usage" in said.out + said.err
    assert "error" not in said.out + said.err


def test_help_is_quick() -> None:
    """Under 0.3 s of CPU time; the best of three, as other work makes caches cold."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["upscale", "--help"], {"torch", "numpy", "PIL", "huggingface_hub"}),
        (["train", "--help"], {"torch", "numpy", "PIL", "huggingface_hub"}),
        (["weights", "list"], {"torch"}),
    ],
)
def test_what_is_quick_imports_nothing_heavy(arguments: list[str], heavy: set[str]) -> None:
    code = (
        f"import sys; from dreamsr.cli import main; main({arguments});"
        f"sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upscale"], "Missing argument"),
        (["upscal"], "No such command"),
        (["upscale", "x.png", "--nonsense"], "No such option"),
        (["upscale", "x.png", "-s", "many"], "--scale"),
        (["upscale", "x.png", "-s"], "-s"),
        (["upscale", "x.png", "-s", "0.5"], "--scale is 0.5"),
        (["upscale", "x.png", "--tile", "big"], "--tile is 'big'"),
        (["upscale", "x.png", "--tile", "7"], "--tile is 7"),
        (["upscale", "x.png", "--width", "9", "-s", "2"], "choose one of --scale"),
        (["upscale", "x.png", "--if-exists", "ask"], "--if-exists is ask"),
        (["upscale", "x.png", "--quality", "0"], "--quality is 0"),
        (["upscale", "x.png", "--format", "gif"], "--format is gif"),
        (["upscale", "x.png", "--steps", "0"], "--steps is 0"),
        (["upscale", "x.png", "--precision", "fp8"], "--precision is 'fp8'"),
        (["upscale", "x.png", "--seed", "-1"], "--seed is -1"),
        (["upscale", "x.png", "-o", "{nope}.png"], "{nope}"),
    ],
)
def test_impossible_requests_exit_with_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert message in said.err


@pytest.mark.parametrize(
    ("error", "code", "start"),
    [
        (DreamsrError("nothing\nto do"), 1, "error: nothing\\nto do"),
        (OutputError("disk full"), 1, "error: disk full"),
        (UsageError("what?"), 2, "error: what?"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (typer.Exit(1), 1, ""),
        (BrokenPipeError(), 141, ""),
        (ZeroDivisionError("by zero"), 1, "error: internal error (ZeroDivisionError: by zero); please report"),
        (RecursionError("deep"), 1, "error: internal error"),
        (MemoryError(), 1, "error: internal error (MemoryError"),
    ],
)
def test_every_end_has_its_code_and_its_line(
    error: BaseException, code: int, start: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def examine() -> None:
        raise error

    monkeypatch.delenv("DREAMSR_TRACEBACK", raising=False)
    monkeypatch.setattr("dreamsr.doctor.examine", examine)
    monkeypatch.setattr(cli, "_silence_stdout", lambda: None)  # it would close the descriptor that pytest reads
    assert cli.main(["doctor"]) == code
    said = capfd.readouterr().err
    assert said.startswith(start)
    assert said.count("\n") == (1 if start else 0)


def test_tracebacks_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dreamsr.doctor.examine", examine)
    monkeypatch.setenv("DREAMSR_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


@pytest.mark.parametrize("arguments", [["doctor", "--json"], ["--help"], ["doctor"]])
def test_a_closed_pipe_ends_with_141_and_no_noise(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*PYTHON, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


class FullDisk(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", [(), ("weights",), *(path for path, _ in leaf_commands(COMMAND))], ids=" ".join)
@pytest.mark.parametrize(("stdout", "reason"), [(FullDisk(), "cannot be written: No space"), (None, "is closed")])
def test_help_that_is_lost_is_told_in_one_line(
    command: tuple[str, ...],
    stdout: io.StringIO | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout", stdout)
    assert cli.main([*command, "--help"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: standard output {reason}")
    assert said.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="shell redirections")
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_help_into_a_bad_place_leaves_no_noise(redirection: str) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    line = f"{sys.executable} -m dreamsr upscale --help {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: standard output ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_completion_that_finds_no_room_is_told_in_one_line() -> None:
    line = f"{sys.executable} -m dreamsr --show-completion bash > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: standard output ")


def test_ctrl_c_exits_with_130_and_leaves_nothing(tmp_path: Path, tiny_weights: Path) -> None:
    for i in range(30):
        Image.effect_noise((200, 150), 60).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    arguments = ["upscale", str(tmp_path), "-o", str(out), "-w", str(tiny_weights), "--device", "cpu", "--steps", "20"]
    process = subprocess.Popen([*PYTHON, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said
    assert 0 < len(list(out.iterdir())) < 30
    assert not list(out.glob(".*"))


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")}
    assert "\x1b[" not in run("upscale", "x.png", "--tile", "7", env=plain).stderr
    assert "\x1b[" in run("upscale", "x.png", "--tile", "7", env=plain | {"FORCE_COLOR": "1"}).stderr
    both = plain | {"FORCE_COLOR": "1", "NO_COLOR": "1"}
    assert "\x1b[3" not in run("upscale", "x.png", "--tile", "7", env=both).stderr
    monkeypatch.undo()


def test_every_command_and_option_has_help() -> None:
    def check(name: str, command: Any) -> None:
        assert command.help, f"{name} has no help"
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"
        for inner, child in getattr(command, "commands", {}).items():
            check(f"{name} {inner}", child)

    check("dreamsr", typer.main.get_command(cli.app))


def test_doctor_tells_what_it_found() -> None:
    done = run("doctor")
    assert "torch" in done.stdout
    assert "computes on" in done.stdout


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["PASSIVE", "0", "0"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "", ""]),
        ({"GOMP_SPINCOUNT": "9"}, ["", "9", ""]),
        ({"KMP_BLOCKTIME": "200"}, ["", "", "200"]),
    ],
)
def test_threads_wait_passively_unless_the_user_has_chosen(chosen: dict[str, str], expected: list[str]) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    code = (
        "import os, sys; from dreamsr.cli import main; assert 'torch' not in sys.modules; main(['--version']);"
        f"print([os.environ.get(name, '') for name in {names}])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == str(expected), done.stderr


@pytest.mark.parametrize("command", ["upscale", "train", "finetune", "bench"])
def test_threads_must_be_a_number_of_threads(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err
