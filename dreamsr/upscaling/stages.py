"""What happens to one file: it is read, enlarged and written. Each stage may run in a thread of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dreamsr.disk import write_bytes_atomically
from dreamsr.errors import DamagedError, DreamsrError, ImageError, OutputError
from dreamsr.folders import is_file
from dreamsr.outputs import require_place
from dreamsr.pictures.losses import not_written
from dreamsr.pictures.picture import KEEPS_ALPHA, Picture, stacked
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.write import PictureEncoder
from dreamsr.upscaling.compare import ComparePage, make_slider
from dreamsr.upscaling.forecast import Forecast
from dreamsr.upscaling.outcome import Outcome, Status
from dreamsr.upscaling.plan import Job, UpscaleRequest, planned_anew
from dreamsr.upscaling.rows_beside import RowsBeside
from dreamsr.upscaling.settings import OnChoice, OnProgress, Settings


class Enlarger(Protocol):
    """What the batch needs of an `Upscaler`."""

    def enlarge_strips(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Iterator[Picture]: ...


@dataclass(frozen=True)
class Options:
    """How to work and write, as opposed to what (`UpscaleRequest`) and how to enlarge (`Settings`)."""

    quality: int | None = None
    strip: bool = False
    dry_run: bool = False
    consistency: bool = False
    compare: Path | None = None
    accept_damaged: bool = False


@dataclass
class Task:
    """One job on its way through the stages. `status` is None as long as there is something left to do."""

    job: Job
    status: Status | None = None
    error: str | None = None
    small: Picture | None = None
    file: RowsBeside | None = None
    strips: list[Picture] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    weights: str | None = None
    consistency_db: float | None = None
    seconds: float = 0.0
    net_seconds: float = 0.0

    def outcome(self) -> Outcome:
        """What became of it."""
        job = self.job
        return Outcome(
            str(job.source.path),
            "-" if job.target is None else str(job.target),
            self.status or "failed",
            self.error,
            job.input_width,
            job.input_height,
            job.width,
            job.height,
            job.format,
            round(self.seconds, 3),
            self.weights,
            self.consistency_db,
            self.notes,
        )


class Stages:
    """The stages, with one set of weights, which is loaded when the first file needs it.

    Whatever goes wrong with one file alone becomes its task's error. What is raised ends all: BrokenPipeError, and
    WeightsError or DeviceError where nothing can be computed.
    """

    def __init__(
        self,
        request: UpscaleRequest,
        settings: Settings,
        options: Options,
        make_upscaler: Callable[[], Enlarger],
        write_stream: Callable[[bytes], None],
        page: ComparePage | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        self.request, self.settings, self.options = request, settings, options
        self.page, self.forecast = page, forecast
        self.make_upscaler, self.write_stream = make_upscaler, write_stream
        self.upscaler: Enlarger | None = None
        self.fatal: DreamsrError | None = None

    def read(self, job: Job) -> Task:
        """The picture, unless its result is there already or is only to be planned."""
        task = Task(job)
        with self._stage(task):
            if self._may_skip(job):
                task.status = "skipped"
            elif self.options.dry_run:
                task.status = "planned"
            else:
                if job.target is not None:
                    require_place(job.target, "`output`" if self.request.output else "the result")
                task.small = self._read(job)
                self._fit_plan(task, task.small)
                _check_alpha(task.small, job.format)
        return task

    def look_again(self, task: Task) -> None:
        """Whether another process has written the result since the picture was read."""
        with self._stage(task):
            if self._may_skip(task.job):
                task.status = "skipped"

    def enlarge(self, task: Task, on_progress: OnProgress) -> None:
        """The large picture from the small one: its rows go into the file as they come, and are kept if looked at."""
        if task.status is not None or task.small is None:
            return

        def on_choice(weights: str) -> None:
            task.weights = weights

        with self._stage(task):
            job, options = task.job, self.options
            task.file = RowsBeside(
                PictureEncoder(
                    task.small, job.height, job.width, format=job.format, quality=options.quality, strip=options.strip
                )
            )
            if self.upscaler is None:
                self.upscaler = self._loaded()
            began = time.monotonic()
            if self.forecast is not None:
                on_progress = self.forecast.hearing(job, on_progress)
            for rows in self.upscaler.enlarge_strips(
                task.small, job.height, job.width, self.settings, on_progress=on_progress, on_choice=on_choice
            ):
                task.file.add(rows)
                if options.consistency or self.page is not None:
                    task.strips.append(rows)
            if self.forecast is not None:
                self.forecast.enlarged()
            task.net_seconds = time.monotonic() - began

    def write(self, task: Task) -> None:
        """The file to its place, and what is known of it into the task; both pictures are let go."""
        if task.status is None and task.small is not None and task.file is not None:
            with self._stage(task):
                self._put(task.job, task.file.finish())
                lost = not_written(task.small, task.job.format, strip=self.options.strip)
                task.notes = (*task.notes, *task.small.notes, *lost)
                if task.strips:
                    self._look_at(task, task.small, stacked(task.strips))
                task.status = "done"
            if self.forecast is not None and task.status == "done":
                self.forecast.finished(task.job, task.seconds - task.net_seconds)
        task.small, task.file = None, None
        task.strips.clear()

    @contextmanager
    def _stage(self, task: Task) -> Iterator[None]:
        """Inside, time counts as work on the task, and errors become its own."""
        began = time.monotonic()
        try:
            yield
        except BrokenPipeError:
            raise  # nobody reads what we write: there is no next file
        except (DreamsrError, OSError, MemoryError) as problem:
            if problem is self.fatal:
                raise
            task.status, task.error = "failed", _reason(task.job, problem)
        except Exception as problem:
            if os.environ.get("DREAMSR_TRACEBACK"):
                raise
            label = task.job.source.label
            task.status, task.error = "failed", f"{label}: internal error ({type(problem).__name__}: {problem})"
        finally:
            task.seconds += time.monotonic() - began

    def _may_skip(self, job: Job) -> bool:
        """Whether the output is there, whole and of the right size. Raises OutputError for a whole one of another."""
        target = job.target
        if self.request.if_exists != "skip" or target is None:
            return False
        if not is_file(target) or not is_complete_picture(target):
            return False
        info = probe_picture(target, max_pixels=1 << 34)
        if (info.width, info.height) != (job.width, job.height):
            raise OutputError(
                f"{job.target_label} exists with {info.width}x{info.height} instead of {job.width}x{job.height} px; "
                "choose `if_exists` overwrite, or another `output`"
            )
        return True

    def _read(self, job: Job) -> Picture:
        source = self.request.data if job.source.is_stream else job.source.path
        accepts = self.options.accept_damaged
        try:
            return read_picture(source, max_pixels=self.request.max_pixels, accept_damaged=accepts)
        except DamagedError as error:
            raise DamagedError(f"{error} `accept_damaged` enlarges it as it is") from None

    def _fit_plan(self, task: Task, picture: Picture) -> None:
        """Plan anew for a picture that was replaced by one of another size. Raises DreamsrError where that fails."""
        job = task.job
        if (picture.width, picture.height) == (job.input_width, job.input_height):
            return
        before, now = f"{job.input_width}x{job.input_height}", f"{picture.width}x{picture.height}"
        if job.names_size:
            raise ImageError(
                f"{job.source.label} was {before} px when the work was planned and is {now} now, and the name of its "
                "result tells the size; enlarge it again"
            )
        task.job = planned_anew(job, picture.height, picture.width, self.request.size)
        task.notes = (f"it was {before} px when the work was planned and {now} when it was read: planned anew",)

    def _loaded(self) -> Enlarger:
        try:
            return self.make_upscaler()
        except DreamsrError as error:
            self.fatal = error  # no other file would fare better
            raise

    def _put(self, job: Job, data: bytes) -> None:
        if job.target is None:
            self.write_stream(data)
            return
        if self.request.if_exists in ("error", "rename") and is_file(job.target):
            raise OutputError(f"{job.target_label} has appeared meanwhile; choose `if_exists` overwrite or rename")
        write_bytes_atomically(job.target, data)

    def _look_at(self, task: Task, small: Picture, large: Picture) -> None:
        """Measure and show the result, where that was asked for."""
        if self.options.consistency:
            from dreamsr.measure.consistency import consistency_db

            task.consistency_db = round(consistency_db(large.pixels, small.pixels), 2)
        if self.page is not None:
            self.page.add(make_slider(task.job.source.label, small, large))


def _check_alpha(picture: Picture, format: str) -> None:
    """Refuse before the long computation what the encoder would refuse after it."""
    if format in KEEPS_ALPHA or picture.alpha is None:
        return
    if picture.alpha.min() < (255 if picture.depth_bits == 8 else 65535):
        raise OutputError(f"the picture has transparency, which {format} cannot hold; choose `format` png")


def _reason(job: Job, error: BaseException) -> str:
    """One line that names the file."""
    if isinstance(error, MemoryError):
        text = "out of memory; close other programs or choose a smaller size"
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}"
    else:
        text = str(error)
    return text if job.source.label in text else f"{job.source.label}: {text}"
