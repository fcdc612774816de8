"""`dreamsr serve` as a process: it says where it is, ends in order however it is ended, and says what it lacks."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from dreamsr.cli import main

serve = importlib.import_module("dreamsr.cli.serve")  # the command has the name of its module
ADDRESS = re.compile(r"dreamsr serves at (http://127\.0\.0\.1:(\d+)/[\w-]{32}/) \(ctrl-C ends it\)\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        (signal.SIGINT, 0, "ended; pictures that were not saved are gone\n"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGHUP, 129, ""),
    ],
)
def test_it_tells_its_address_and_ends_in_order(tmp_path: Path, ends: signal.Signals, code: int, says: str) -> None:
    (stale := tmp_path / "dreamsr-serve-00000000-1-abcdefgh").mkdir()  # of another machine
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamsr", "serve", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = ADDRESS.fullmatch(line)
    assert found, (line, process.poll())
    with urlopen(found[1], timeout=60) as answer:
        assert b"Drop pictures here" in answer.read()
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(ends)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", says)
    assert list(tmp_path.iterdir()) == [stale]


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "NEEDED", ("no_such_server",))
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said == 'error: the page needs a server that is not installed: pip install "dreamsr[serve]"\n'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-w", "phto-x4"], "did you mean photo-x4?"),
        (["--precision", "fp8"], "--precision is 'fp8'"),
        (["--port", "70000"], "--port"),
        (["--host", "0.0.0.0"], "--host"),
        (["--max-pixels", "0"], "--max-pixels is 0, but it must be 1 or more"),
    ],
)
def test_a_wrong_command_line_is_one_line(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) in (1, 2)
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("screen", "opens"), [({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True), ({}, False)]
)
def test_a_browser_opens_where_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, screen: dict[str, str], opens: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screen.items():
        monkeypatch.setenv(name, value)
    assert serve._has_screen() is opens
