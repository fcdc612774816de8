"""What people type who come from other tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamsr.cli import main
from dreamsr.cli.habits import with_command

COMMANDS = ("upscale", "train")


def test_a_picture_alone_is_to_be_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "train").mkdir()
    for words in (["in.png", "-o", "x.png"], ["photos"], ["-"], ["*.png"], ["../a"]):
        assert with_command(words, COMMANDS) == ["upscale", *words]
    for words in (["train"], ["upscale", "in.png"], ["upscal"], ["--version"], ["-s", "2", "in.png"], []):
        assert with_command(words, COMMANDS) == words


def test_a_missing_picture_alone_is_told_as_by_upscale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["missing.png"]) == 1
    assert "missing.png does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["upscale", "-i", "a.png", "-o", "b.png"], "dreamsr upscale INPUT -o OUTPUT"),
        (["-i", "a.png", "-o", "b.png"], "dreamsr upscale INPUT -o OUTPUT"),
        (["upscale", "a.png", "-n", "x4plus"], "-w NAME"),
        (["upscale", "a.png", "-g", "0"], "--device"),
        (["train", "--epochs", "3"], "--max-steps"),
        (["train", "--lr", "1e-4"], "learning rate: --learning-rate"),
        (["finetune", "--weights", "clean-x4", "--lr", "0.001"], "learning rate: --learning-rate"),
        (["train", "--data", "x", "--set", "learning_rat=1"], "--set learning_rat: no such field in use; "),
        (["train", "--data", "x", "--set", "learning_rat=1"], "choose learning_rate\n"),
        (["train", "--data", "x", "--set", "model.sr3.dropout=0.1"], "--set model.sr3: no such field in use"),
        (["train", "--data", "x", "--preset", "sr3-x4", "--set", "model.sr3.dropot=0"], "choose model.sr3.dropout\n"),
        (["finetune", "--weights", "clean-x4", "--data", "x", "--set", "finish.step=1"], "choose finish.steps\n"),
        (["bench", "--nonsense"], "No such option"),
    ],
)
def test_habits_of_other_tools_are_answered(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("error: ") == len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("upscale --if-exists s", "skip"),
        ("upscale --format ti", "tiff"),
        ("upscale --weights cl", "clean-x4"),
        ("upscale --device cu", "cuda"),
        ("train --preset sr3", "sr3-x4"),
        ("finetune --weights cl", "clean-x4"),
        ("train --preset idm-c", "idm-continuous"),
        ("study --device mp", "mps"),
        ("upscale --progress li", "lines"),
    ],
)
def test_the_shell_completes_values(words: str, value: str) -> None:
    asked = {"_DREAMSR_COMPLETE": "complete_bash", "COMP_WORDS": f"dreamsr {words}", "COMP_CWORD": "3"}
    code = "from dreamsr.cli import app; app(prog_name='dreamsr')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked)
    assert value in done.stdout.split(), done.stderr


def test_of_several_processes_one_says_what_is_wrong(tmp_path: Path) -> None:
    """Launchers start them with the same command line."""
    told = []
    for rank in ("0", "1"):
        environment = os.environ | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        for words in (["upscale", "--nonsense"], ["train", "--lr", "1e-3"]):
            command = [sys.executable, "-m", "dreamsr", *words]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
            assert done.returncode == 2
            told.append(done.stderr.count("error: "))
    assert told == [1, 1, 0, 0]
