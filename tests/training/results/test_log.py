"""The logs of a run: whole lines, cut where a run goes on, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dreamsr.errors import OutputError
from dreamsr.training.results.log import STEPS, TENSORBOARD, VALIDATIONS, TrainLog, TrainProgress, read_lines
from dreamsr.training.results.validation import Validation
from tests.training.tiny_runs import valid_row


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without TensorBoard; tests that want one put it there."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def progress(step: int, loss: float = 0.5) -> TrainProgress:
    return TrainProgress(step, 10, loss, 0.25, 1e-3, 12.5, 3.0, 100.0, 0)


def validated(step: int, lpips: float | None = None, psnr: float = 27.0) -> Validation:
    rows = (valid_row(1, psnr, 0.8, lpips), valid_row(4, 26.0, 0.7, lpips))
    return Validation(step, rows, valid_row(0, 25.0, 0.75, lpips), 27.0)


def write(out: Path, steps: range, *, from_step: int = 0) -> None:
    log = TrainLog(out, from_step=from_step)
    for step in steps:
        log.step(progress(step))
        if step % 2 == 0:
            log.validation(validated(step))
    log.close()


def steps_of(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_there_is_one_line_per_step_and_per_validation(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    assert steps_of(tmp_path / STEPS) == [1, 2, 3, 4, 5]
    assert steps_of(tmp_path / VALIDATIONS) == [2, 4]
    first = json.loads((tmp_path / STEPS).read_text().splitlines()[0])
    assert first == progress(1).__dict__
    assert json.loads((tmp_path / VALIDATIONS).read_text().splitlines()[0]) == {
        "step": 2,
        "score": 27.0,
        "bicubic": {"steps": 0, "psnr_y": 25.0, "ssim_y": 0.75, "lpips_alex": None},
        "rows": [
            {"steps": 1, "psnr_y": 27.0, "ssim_y": 0.8, "lpips_alex": None},
            {"steps": 4, "psnr_y": 26.0, "ssim_y": 0.7, "lpips_alex": None},
        ],
    }


def test_a_resumed_run_cuts_what_was_lost(tmp_path: Path) -> None:
    write(tmp_path, range(1, 9))
    write(tmp_path, range(6, 8), from_step=5)
    assert steps_of(tmp_path / STEPS) == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(tmp_path / VALIDATIONS) == [2, 4, 6]


def test_a_new_run_begins_with_empty_logs(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    TrainLog(tmp_path, from_step=0).close()
    assert (tmp_path / STEPS).read_text() == ""


def test_lines_that_a_crash_cut_off_go(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / STEPS).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [entry["step"] for entry in read_lines(tmp_path / STEPS)] == [1, 2, 3]
    write(tmp_path, range(4, 5), from_step=3)
    assert steps_of(tmp_path / STEPS) == [1, 2, 3, 4]


def test_lines_are_there_before_the_log_is_closed(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, from_step=0)
    log.step(progress(1))
    assert steps_of(tmp_path / STEPS) == [1]
    log.close()
    log.close()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_no_number_is_null(tmp_path: Path, value: float) -> None:
    log = TrainLog(tmp_path, from_step=0)
    log.step(progress(1, loss=value))
    log.validation(validated(1, psnr=value))
    log.close()
    (step,), (found,) = read_lines(tmp_path / STEPS), read_lines(tmp_path / VALIDATIONS)
    assert step["loss"] is None
    assert found["rows"][0]["psnr_y"] is None
    for name in (STEPS, VALIDATIONS):
        assert not any(word in (tmp_path / name).read_text() for word in ("NaN", "Infinity"))


def test_logs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / STEPS).mkdir()
    with pytest.raises(OutputError, match=STEPS):
        TrainLog(tmp_path, from_step=0)


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / STEPS) == []


class Writer:
    """What of torch.utils.tensorboard.SummaryWriter is used, remembering it all."""

    made: list[Writer]

    def __init__(self, log_dir: str, purge_step: int | None) -> None:
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Writer.made.append(self)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    stub: Any = ModuleType("torch.utils.tensorboard")
    stub.SummaryWriter = Writer
    Writer.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stub)
    return Writer.made


def test_tensorboard_hears_the_same(tmp_path: Path, boards: list[Writer]) -> None:
    log = TrainLog(tmp_path, from_step=0)
    log.step(progress(1))
    log.validation(validated(1, lpips=0.3))
    log.close()
    (board,) = boards
    assert board.log_dir == str(tmp_path / TENSORBOARD)
    assert board.closed
    assert ("train/loss", 0.5, 1) in board.scalars
    assert ("train/learning_rate", 1e-3, 1) in board.scalars
    assert ("validation/psnr_y/steps-4", 26.0, 1) in board.scalars
    assert ("validation/lpips_alex/steps-1", 0.3, 1) in board.scalars
    assert steps_of(tmp_path / STEPS) == [1]


def test_tensorboard_hears_nothing_of_what_was_not_measured(tmp_path: Path, boards: list[Writer]) -> None:
    log = TrainLog(tmp_path, from_step=0)
    log.validation(validated(1))
    log.close()
    assert not any("lpips" in tag for tag, _, _ in boards[0].scalars)


def test_tensorboard_forgets_what_was_lost(tmp_path: Path, boards: list[Writer]) -> None:
    """purge_step hides steps from that number on."""
    for from_step in (0, 5):
        TrainLog(tmp_path, from_step=from_step).close()
    assert [board.purge_step for board in boards] == [None, 6]


def test_the_real_tensorboard_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    pytest.importorskip("tensorboard", reason="the extra dreamsr[tensorboard] is not installed")
    log = TrainLog(tmp_path, from_step=0)
    log.step(progress(1))
    log.validation(validated(1))
    log.close()
    (events,) = (tmp_path / TENSORBOARD).iterdir()
    assert b"train/loss" in events.read_bytes()
