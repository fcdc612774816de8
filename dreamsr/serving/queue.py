"""The pictures on the page, in the order they came, of which one at a time is enlarged as `upscale` would."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dreamsr.errors import DreamsrError, UsageError
from dreamsr.serving.choices import Choices, in_words_of_the_page
from dreamsr.serving.uploads import safe_name
from dreamsr.upscaling.files import upscale_files
from dreamsr.upscaling.outcome import Outcome
from dreamsr.upscaling.plan import Job, plan
from dreamsr.upscaling.stages import Enlarger

State = Literal["waiting", "working", "cancelling", "done", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("waiting", "working", "cancelling")
MOST_PICTURES = 1000
PAGE = ".compare.html"
"""Beside a picture, where before and after are compared; no picture's name begins with a dot."""
LOOKS_UP_SECONDS = 0.5
"""How often work that waits for pictures looks whether it should go on waiting."""

MakeEnlarger = Callable[[Choices, Callable[[str], None], Callable[[int, int], None]], Enlarger]
"""Loads weights: what was chosen, who hears notices, and who hears bytes that have arrived, and all bytes."""


class Cancelled(BaseException):
    """Ends the work on one picture on the way that ctrl-C takes in `upscale`, past every handler of errors."""


@dataclass(frozen=True)
class Queued:
    """One picture on the page. Sizes in pixels, 0 where unknown.

    `doing` tells what it waits for, such as weights to be fetched; `weights` which it was enlarged by in the end.
    """

    id: str
    upload: Path
    choices: Choices
    state: State = "waiting"
    error: str = ""
    notes: tuple[str, ...] = ()
    doing: str = ""
    fraction: float = 0.0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    input_size: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    format: str = ""
    weights: str = ""
    result: Path | None = None
    compare: Path | None = None


class PictureQueue:
    """Pictures are added, cancelled and removed by any thread; one thread works.

    All files lie in `folder`, each picture's in a folder of its own.
    """

    def __init__(self, folder: Path, *, max_pixels: int, make_enlarger: MakeEnlarger) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        self._make_enlarger = make_enlarger
        self._loaded: tuple[tuple[str, float | None], Enlarger] | None = None
        self._entries: dict[str, Queued] = {}
        self._changed = threading.Condition()
        self._number = 0

    def place(self, name: str) -> Path:
        """Where a picture of that name is to be put before it is added. Raises UsageError where the list is full."""
        with self._changed:
            if len(self._entries) >= MOST_PICTURES:
                raise UsageError(f"the list holds {MOST_PICTURES} pictures; remove some of them first")
            self._number += 1
            folder = self.folder / str(self._number)
        folder.mkdir()
        return folder / safe_name(name)

    def discard(self, upload: Path) -> None:
        """Remove a picture that has a place but will not be added."""
        shutil.rmtree(upload.parent, ignore_errors=True)

    def add(self, upload: Path, choices: Choices) -> Queued:
        """The picture in its place, at the end of the queue, or failed at once where `upscale` would not begin."""
        entry = Queued(upload.parent.name, upload, choices)
        try:
            planned = plan(choices.request(upload, self.max_pixels))
        except DreamsrError as error:
            entry = self._failed(entry, str(error))
        else:
            for problem in planned.problems:
                entry = self._failed(entry, problem.reason)
            for job in planned.jobs:
                entry = replace(entry, **_facts(job))
        with self._changed:
            self._entries[entry.id] = entry
            self._changed.notify_all()
        return entry

    def entries(self) -> list[Queued]:
        """All pictures, in the order they came."""
        with self._changed:
            return list(self._entries.values())

    def entry(self, id: str) -> Queued:
        """One of them. Raises KeyError."""
        with self._changed:
            return self._entries[id]

    def cancel(self, id: str) -> None:
        """Leave it out, or end the work on it, as soon as its current tile is done. Raises KeyError."""
        with self._changed:
            entry = self._entries[id]
            if entry.state == "waiting":
                self._entries[id] = self._ended(replace(entry, state="cancelled"))
            elif entry.state == "working":
                self._entries[id] = replace(entry, state="cancelling")

    def remove(self, id: str) -> None:
        """Forget it, with its files. Raises KeyError, and UsageError while it waits or is worked on."""
        with self._changed:
            entry = self._entries[id]
            if entry.state in OPEN:
                raise UsageError(f"{entry.upload.name} is not finished; cancel it first")
            del self._entries[id]
        shutil.rmtree(entry.upload.parent, ignore_errors=True)

    def work(self, goes_on: Callable[[], bool]) -> None:
        """Enlarge one picture after the other in this thread, until `goes_on` says no."""
        while goes_on():
            entry = self._next()
            if entry is not None:
                self._enlarge(entry)

    def change(self, id: str, **changes: Any) -> None:
        """Write down how the work on a picture goes on. Raises Cancelled where it should not."""
        with self._changed:
            entry = self._entries[id]
            if entry.state == "cancelling":
                raise Cancelled
            self._entries[id] = replace(entry, **changes)

    def _next(self) -> Queued | None:
        """The first that waits, marked as worked on; None where there was none for a while."""
        with self._changed:
            waiting = (entry for entry in self._entries.values() if entry.state == "waiting")
            entry = next(waiting, None)
            if entry is None:
                self._changed.wait(LOOKS_UP_SECONDS)
                return None
            entry = self._entries[entry.id] = replace(entry, state="working", began=time.monotonic())
            return entry

    def _enlarge(self, entry: Queued) -> None:
        """One picture, by the way that `dreamsr upscale` takes; whatever goes wrong stays its own affair."""
        listener, page, trouble = _Listener(self, entry.id), entry.upload.with_name(PAGE), ""
        try:
            upscale_files(
                entry.choices.request(entry.upload, self.max_pixels),
                entry.choices.settings,
                entry.choices.options(page),
                make_upscaler=lambda: self._enlarger(entry.choices, listener),
                watcher=listener,
                write_stream=lambda _: None,
            )
        except Cancelled:
            self._end(entry.id, state="cancelled")
            return
        except DreamsrError as error:
            trouble = str(error)
        except Exception as error:
            if os.environ.get("DREAMSR_TRACEBACK"):
                raise
            trouble = f"internal error ({type(error).__name__}: {error})"
        self._finish(entry.id, listener.outcome, page, trouble)

    def _enlarger(self, choices: Choices, listener: _Listener) -> Enlarger:
        """The weights that were chosen; only the last ones stay in memory."""
        key = choices.weights, choices.denoise
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            self._loaded = key, self._make_enlarger(choices, listener.noticed, listener.downloaded)
        listener.noticed("")
        return self._loaded[1]

    def _finish(self, id: str, outcome: Outcome | None, page: Path, trouble: str) -> None:
        """Write down what came of it; `trouble` beside a finished picture is a note."""
        if outcome is None or outcome.status != "done" or outcome.output is None:
            reason = trouble or (outcome and outcome.error) or "nothing became of it; add it again"
            self._end(id, state="failed", error=self._told(reason))
            return
        notes = tuple(self._told(note) for note in (*outcome.notes, trouble) if note)
        compare = page if page.is_file() else None
        told = {"notes": notes, "weights": outcome.weights or "", "fraction": 1.0}
        self._end(id, state="done", result=Path(outcome.output), compare=compare, **told)

    def _end(self, id: str, **changes: Any) -> None:
        """The last change of a picture, cancelled or not."""
        with self._changed:
            self._entries[id] = self._ended(replace(self._entries[id], **changes))

    def _ended(self, entry: Queued) -> Queued:
        """An entry that nothing more will become of, with no files but its result and the page to compare it on."""
        if entry.result is None:
            shutil.rmtree(entry.upload.parent, ignore_errors=True)
        else:
            entry.upload.unlink(missing_ok=True)
        return replace(entry, doing="", seconds=time.monotonic() - entry.began)

    def _failed(self, entry: Queued, reason: str) -> Queued:
        return self._ended(replace(entry, state="failed", error=self._told(reason)))

    def _told(self, message: str) -> str:
        return in_words_of_the_page(message, self.folder)


def _facts(job: Job) -> dict[str, Any]:
    """What is known of a picture before it is enlarged."""
    return {
        "input_size": (job.input_width, job.input_height),
        "size": (job.width, job.height),
        "format": job.format,
    }


class _Listener:
    """The watcher of the work on one picture: the queue learns what it hears, and says whether to go on."""

    def __init__(self, queue: PictureQueue, id: str) -> None:
        self.queue, self.id = queue, id
        self.outcome: Outcome | None = None

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None:
        """Planned it was when it was added."""

    def started(self, job: Job) -> None:
        """Work begins, unless it has been cancelled meanwhile."""
        self.queue.change(self.id, **_facts(job))

    def progressed(self, job: Job, fraction: float) -> None:  # noqa: ARG002
        """Work goes on, 0 to 1."""
        self.queue.change(self.id, fraction=fraction)

    def finished(self, outcome: Outcome) -> None:
        """It is done or has failed."""
        self.outcome = outcome

    def waiting(self, count: int) -> None:
        """Nobody else works on it."""

    def noticed(self, text: str) -> None:
        """Something worth knowing while weights are loaded."""
        self.queue.change(self.id, doing=text)

    def downloaded(self, done: int, total: int) -> None:
        """Bytes of the weights that have arrived."""
        self.queue.change(self.id, doing=f"fetching weights: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
