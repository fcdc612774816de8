"""What a training run writes down as it goes: JSON lines always, TensorBoard where it is installed.

    log.jsonl       one line per optimizer step, the fields of `TrainProgress`
    valid.jsonl     one line per validation: step, score, bicubic, rows
    tensorboard/    the same for TensorBoard, with the extra `dreamsr[tensorboard]`

Numbers that are not finite are written as null: JSON has no others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dreamsr.disk import json_text, parse_json, write_bytes_atomically
from dreamsr.errors import OutputError, printable
from dreamsr.training.config import StageName

if TYPE_CHECKING:
    from dreamsr.training.results.validation import Validation, ValidRow

STEPS = "log.jsonl"
VALIDATIONS = "valid.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class TrainProgress:
    """One optimizer step as told to the caller: step counts from 1; losses and speed are those of all processes.

    seconds_left: at the speed of the latest steps. peak_memory_mb: of the GPU, or of this process; 0 if unknown.
    skipped: updates left out so far because a loss was not finite. parts: in finishing, the unweighted losses by name.
    """

    step: int
    max_steps: int
    loss: float
    base_loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    peak_memory_mb: float
    skipped: int
    stage: StageName = "plain"
    parts: Mapping[str, float] = field(default_factory=dict)


class TrainLog:
    """The logs in the run's folder `out`, which must exist, from optimizer step `from_step` on.

    Lines of later steps, left by the part of a run that was lost, are cut, and so are lines cut off by a crash.
    Raises OutputError where the files cannot be written.
    """

    def __init__(self, out: Path, *, from_step: int) -> None:
        for name in (STEPS, VALIDATIONS):
            _cut(out / name, from_step)
        self._steps = _opened(out / STEPS)
        self._validations = _opened(out / VALIDATIONS)
        self._board = _board(out / TENSORBOARD, from_step)

    def step(self, progress: TrainProgress) -> None:
        """One optimizer step is done."""
        _write(self._steps, asdict(progress))
        if self._board is not None:
            for name in ("loss", "base_loss", "learning_rate", "images_per_second"):
                self._board.add_scalar(f"train/{name}", getattr(progress, name), progress.step)
            for name, value in progress.parts.items():
                self._board.add_scalar(f"train/finish/{name}", value, progress.step)

    def validation(self, found: Validation) -> None:
        """One validation is done."""
        rows = [_finite(row.as_json()) for row in found.rows]
        bicubic = _finite(found.bicubic.as_json())
        _write(self._validations, {"step": found.step, "score": found.score, "bicubic": bicubic, "rows": rows})
        if self._board is not None:
            self._board.add_scalar("validation/score", found.score, found.step)
            for row in found.rows:
                self._show(row, found.step)

    def _show(self, row: ValidRow, step: int) -> None:
        assert self._board is not None
        for metric, value in row.figures.items():
            self._board.add_scalar(f"validation/{metric.key}/steps-{row.steps}", value, step)

    def close(self) -> None:
        """Close all files; once more does nothing."""
        self._steps.close()
        self._validations.close()
        if self._board is not None:
            self._board.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a log that are whole, in their order; none where there is no file."""
    if not path.is_file():
        return []
    return [entry for line in path.read_bytes().splitlines() if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of a log, or None where a crash cut it off."""
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("step"), int)
    return entry if whole else None


def _cut(path: Path, from_step: int) -> None:
    """Leave only whole lines of steps up to `from_step`."""
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [
        line for line in lines if line.endswith(b"\n") and (_entry(line) or {"step": math.inf})["step"] <= from_step
    ]
    if len(kept) < len(lines):
        write_bytes_atomically(path, b"".join(kept))


def _opened(path: Path) -> TextIO:
    """For appending, line by line: a killed run keeps all lines but those still in the kernel at a power cut."""
    try:
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise OutputError(f"{printable(path)}: cannot be written ({error.strerror}); choose another `out`") from None


def _write(file: TextIO, entry: Mapping[str, Any]) -> None:
    file.write(json_text(_finite(entry)) + "\n")


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _finite_value(value) for key, value in entry.items()}


def _finite_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _finite(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: Path, from_step: int) -> Any:
    """A TensorBoard writer that hides what was written beyond `from_step` before; None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        writer: Any = SummaryWriter
        return writer(log_dir=str(folder), purge_step=from_step + 1 if from_step else None)
