"""The picture of a run: something is drawn for one point and for many, and nothing where there is nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamsr.training.results.curves import COLOURS, DPI, MOST_POINTS, PANEL_INCHES, draw_curves, smoothed
from dreamsr.training.results.log import TrainLog, TrainProgress
from dreamsr.training.results.validation import Validation
from tests.training.tiny_runs import valid_row


def write(out: Path, steps: int, *, lpips: float | None = None, every: int = 0, loss: float | None = None) -> Path:
    """The logs of a run whose loss falls."""
    log = TrainLog(out, from_step=0)
    for step in range(1, steps + 1):
        now = 1 / step if loss is None else loss
        log.step(TrainProgress(step, steps, now, now, 1e-3 / step, 10.0, 1.0, 0.0, 0))
        if every and step % every == 0:
            rows = tuple(valid_row(n, 27 + step / steps - n / 10, 0.8, lpips) for n in (1, 4))
            log.validation(Validation(step, rows, valid_row(0, 25.0, 0.7, lpips), 27.0))
    log.close()
    return out


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def panels(path: Path) -> list[np.ndarray]:
    """The picture cut into its panels, row by row, [H,W,3] each."""
    width, height = (round(DPI * inches) for inches in PANEL_INCHES)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    assert sheet.shape[0] % height == 0
    assert sheet.shape[1] % width == 0
    tops, lefts = range(0, sheet.shape[0], height), range(0, sheet.shape[1], width)
    return [sheet[top : top + height, left : left + width] for top in tops for left in lefts]


def is_empty(panel: np.ndarray) -> bool:
    """Whether nothing is drawn in the middle of a panel; a neighbour's frame may reach over its border."""
    return bool((panel[60:-60, 60:-60] == 255).all())


def shows(panel: np.ndarray, colour: str) -> bool:
    """Whether more than a speck of a panel has that colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(panel.astype(int) - wanted).max(axis=2) < 12).sum()) > 3


@pytest.mark.parametrize("steps", [1, 2, 300])
def test_loss_and_rate_are_drawn_from_the_first_step_on(tmp_path: Path, steps: int) -> None:
    path = draw_curves(write(tmp_path, steps))
    assert path == tmp_path / "curves.png"
    loss, rate = panels(path)
    assert shows(loss, COLOURS[0])
    assert shows(rate, COLOURS[1])


@pytest.mark.parametrize("every", [4, 20])
def test_validations_are_drawn_with_one_line_per_number_of_steps(tmp_path: Path, every: int) -> None:
    path = draw_curves(write(tmp_path, 20, every=every, lpips=0.3))
    assert path is not None
    found = panels(path)
    assert len(found) == 6  # the last one empty
    for panel in found[2:5]:
        assert shows(panel, COLOURS[1])  # 4 steps; those at 1 step may lie below them
        assert shows(panel, "#444444")  # bicubic
    assert shows(found[2], COLOURS[0])
    assert is_empty(found[5])


def test_what_was_not_measured_has_no_panel(tmp_path: Path) -> None:
    path = draw_curves(write(tmp_path, 4, every=2))
    assert path is not None
    found = panels(path)
    assert [is_empty(panel) for panel in found] == [False] * 4 + [True] * 2


def test_losses_that_are_no_numbers_leave_the_others(tmp_path: Path) -> None:
    assert draw_curves(write(tmp_path, 5, loss=float("nan"))) is None
    write(tmp_path, 5)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "loss": null, "learning_rate": 0.001}\n{"step": 7, "lo')
    drawn = draw_curves(tmp_path)
    assert drawn is not None
    assert shows(panels(drawn)[0], COLOURS[0])


def test_a_loss_of_zero_is_drawn_too(tmp_path: Path) -> None:
    path = draw_curves(write(tmp_path, 5, loss=0.0))
    assert path is not None
    assert shows(panels(path)[0], COLOURS[0])


def test_validations_alone_are_drawn(tmp_path: Path) -> None:
    write(tmp_path, 4, every=2)
    (tmp_path / "log.jsonl").unlink()
    path = draw_curves(tmp_path)
    assert path is not None
    assert len(panels(path)) == 2


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    line = '{"step": %d, "loss": 0.5, "learning_rate": 0.001}\n'
    (tmp_path / "log.jsonl").write_text("".join(line % step for step in range(1, 2 * MOST_POINTS + 2)))
    path = draw_curves(tmp_path)
    assert path is not None
    assert shows(panels(path)[0], COLOURS[0])


def test_nothing_is_drawn_from_nothing(tmp_path: Path) -> None:
    assert draw_curves(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 3)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_the_same_logs_give_the_same_bytes(tmp_path: Path) -> None:
    path = draw_curves(write(tmp_path, 5))
    assert path is not None
    first = path.read_bytes()
    assert draw_curves(tmp_path) == path
    assert path.read_bytes() == first


def test_smoothing_keeps_a_constant_and_halves_noise_and_never_looks_ahead() -> None:
    assert smoothed(np.full(100, 0.7)) == pytest.approx(np.full(100, 0.7))
    noise = np.random.default_rng(0).normal(size=1000)
    assert smoothed(noise).std() < 0.5 * noise.std()
    changed = np.append(noise[:-1], 100.0)
    assert np.array_equal(smoothed(noise)[:-1], smoothed(changed)[:-1])
    assert smoothed(np.array([3.0])) == pytest.approx([3.0])
