"""What a training run shows: a bar on a terminal, a line now and then in a log, a table per validation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dreamsr.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from dreamsr.training.request import Listener
    from dreamsr.training.results.log import TrainProgress
    from dreamsr.training.results.validation import Validation

LINE_EVERY_SECONDS = 30.0
"""Between two lines where no bar can be drawn."""
SILENT_SECONDS = 1.0
"""How long a look at the photos may take without a word."""


class TrainView:
    """Hears a run's progress and shows it on stderr."""

    def __init__(self, bars: Bars | None) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._scan: TaskID | None = None
        self._next_scan_line: float | None = None
        self._last_line = -LINE_EVERY_SECONDS
        self._skipped = 0

    def scan(self, done: int, total: int) -> None:
        """So many of all photos have been looked at."""
        if self._bars is not None:
            if self._scan is None:
                self._scan = self._bars.add_task("looking at the photos", total=total)
            self._bars.update(self._scan, completed=done, visible=done < total)
            return
        now = time.monotonic()
        if self._next_scan_line is None:
            self._next_scan_line = now + SILENT_SECONDS
        elif done < total and now >= self._next_scan_line:
            self._next_scan_line = now + LINE_EVERY_SECONDS
            console.note(f"looking at the photos: {done:,} of {total:,}")

    def step(self, now: TrainProgress) -> None:
        """One optimizer step is done."""
        if now.skipped > self._skipped:
            console.warn(f"step {now.step}: the loss was not finite; its update was left out ({now.skipped} so far)")
        self._skipped = now.skipped
        if self._bars is not None:
            if self._task is None:
                self._task = self._bars.add_task("training", total=now.max_steps, completed=now.step)
            self._bars.update(self._task, completed=now.step, description=in_words(now))
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS or now.step == now.max_steps:
            self._last_line = time.monotonic()
            console.note(f"step {now.step} of {now.max_steps}: {in_words(now)}, {duration(now.seconds_left)} left")

    def validation(self, found: Validation) -> None:
        """A validation is done: one line."""
        parts = [
            f"{row.steps} steps {' / '.join(metric.text(value) for metric, value in row.figures.items())}"
            for row in (found.bicubic, *found.rows)
        ]
        parts[0] = parts[0].replace("0 steps", "bicubic", 1)
        title = " / ".join(metric.label for metric in found.bicubic.figures)
        console.note(f"validation at step {found.step}, {title}: {'; '.join(parts)}")


@contextmanager
def train_view() -> Iterator[Listener]:
    """A listener that shows on stderr what it hears, with a bar where that is a terminal."""
    from dreamsr.training.request import Listener

    with console.bars() as bars:
        view = TrainView(bars)
        yield Listener(view.step, console.note, view.validation, on_scan=view.scan)


def in_words(now: TrainProgress) -> str:
    """Stage, losses, rate, speed and memory of one step."""
    memory = f", {now.peak_memory_mb / 1024:.1f} GB" if now.peak_memory_mb else ""
    parts = ", ".join(f"{name} {value:.4f}" for name, value in now.parts.items())
    losses = f"loss {now.loss:.4f}" + (f" ({parts})" if parts else "")
    return f"{now.stage}: {losses}, rate {now.learning_rate:.1e}, {now.images_per_second:.1f} images/s{memory}"


def duration(seconds: float) -> str:
    """Seconds in the two units that people would say."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 72 else f"{hours // 24} d {hours % 24} h"
