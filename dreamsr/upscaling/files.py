"""Enlarge many files (or one): one at a time, streamed, each reported, none lost, whatever happens to the others."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from dreamsr.disk import remove_stale_temps, temp_beside, write_bytes_atomically
from dreamsr.errors import DamagedError, DreamsrError, ImageError, OutputError
from dreamsr.outputs import require_place
from dreamsr.pictures.folders import Problem, is_file
from dreamsr.pictures.losses import not_written
from dreamsr.pictures.picture import KEEPS_ALPHA, Picture
from dreamsr.pictures.read import is_complete_picture, probe_picture, read_picture
from dreamsr.pictures.write import encode_picture
from dreamsr.processes import Processes, joined
from dreamsr.upscaling.compare import ComparePage, make_slider
from dreamsr.upscaling.plan import Job, OnPlanning, UpscalePlan, UpscaleRequest, plan
from dreamsr.upscaling.settings import OnChoice, OnProgress, Progress, Settings

Status = Literal["planned", "done", "skipped", "failed"]


class Enlarger(Protocol):
    """What the batch needs of an `Upscaler`."""

    def enlarge_picture(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Picture: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one input. Sizes in pixels, 0 where unknown; `weights` as they were chosen."""

    input: str
    output: str | None
    status: Status
    error: str | None = None
    input_width: int = 0
    input_height: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    seconds: float = 0.0
    weights: str | None = None
    consistency_db: float | None = None
    notes: tuple[str, ...] = ()


class Watcher(Protocol):
    """Who is told how the work goes on."""

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None:
        """The jobs of this process, before the first."""

    def started(self, job: Job) -> None:
        """Work on one file begins."""

    def progressed(self, job: Job, fraction: float) -> None:
        """Work on one file goes on, 0 to 1."""

    def finished(self, outcome: Outcome) -> None:
        """One file is done, skipped or has failed."""


class _Keeper:
    """The watcher of a process other than rank 0: it keeps what rank 0 will show."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None:
        """Rank 0 shows the plan."""

    def started(self, job: Job) -> None:
        """Nobody to show it to."""

    def progressed(self, job: Job, fraction: float) -> None:
        """Nobody to show it to."""

    def finished(self, outcome: Outcome) -> None:
        """Kept until the end."""
        self.outcomes.append(outcome)


@dataclass(frozen=True)
class Options:
    """How to work and write, as opposed to what (`UpscaleRequest`) and how to enlarge (`Settings`)."""

    quality: int | None = None
    strip: bool = False
    dry_run: bool = False
    consistency: bool = False
    compare: Path | None = None
    accept_damaged: bool = False


Counts = Counter[Status]
"""How many files ended how, over all processes; complete in rank 0 only."""


def upscale_files(
    request: UpscaleRequest,
    settings: Settings,
    options: Options,
    *,
    make_upscaler: Callable[[], Enlarger],
    watcher: Watcher,
    write_stream: Callable[[bytes], None],
    on_planning: OnPlanning | None = None,
) -> Counts:
    """Plan, then enlarge this process's share of the files. The weights are loaded when the first file needs them.

    Failures of single files are reported, not raised. Raises UsageError and OutputError from planning, and
    WeightsError or DeviceError where nothing can be computed at all.
    """
    with joined() as processes:
        planned = _shared_plan(request, options, processes, on_planning)
        if planned is None:
            return Counts()
        keeper = _Keeper()
        watcher = watcher if processes.is_rank_0 else keeper
        jobs = planned.jobs[processes.rank :: processes.world_size]
        watcher.planned(jobs, planned.notes)
        page = None if options.dry_run else _page(planned, request, processes)
        worker = _Worker(request, settings, options, make_upscaler, watcher, write_stream, page)
        fatal: DreamsrError | None = None
        try:
            if processes.is_rank_0:
                worker.tell_problems(planned.problems)
            for job in jobs:
                worker.run(job)
        except DreamsrError as error:
            fatal = error  # told only after the others, who wait for this process, have been heard
        parts: list[Part] = processes.gather((keeper.outcomes, page.path if page and page.begun else None, fatal))
        return _combined(parts, worker)


def _shared_plan(
    request: UpscaleRequest, options: Options, processes: Processes, on_planning: OnPlanning | None
) -> UpscalePlan | None:
    """Rank 0's plan in every process; None in those that have nothing to do because rank 0 raised."""
    planned: UpscalePlan | None = None
    try:
        if processes.is_rank_0:
            planned = _placed(plan(request, page=options.compare, on_planning=on_planning), request)
            if not options.dry_run:
                _prepare_folders(planned)
    finally:
        planned = processes.broadcast(planned)
    return planned


def _placed(planned: UpscalePlan, request: UpscaleRequest) -> UpscalePlan:
    """The plan without results that no place can take, which become problems of their inputs."""
    jobs, problems = [], list(planned.problems)
    for job in planned.jobs:
        try:
            _require_place(job, request)
            jobs.append(job)
        except OutputError as error:
            problems.append(Problem(str(job.source.path), f"{job.source.label}: {error}"))
    return replace(planned, jobs=jobs, problems=problems)


def _require_place(job: Job, request: UpscaleRequest) -> None:
    """Raises OutputError where the output cannot be written; one that may be skipped need not be."""
    if job.target is not None and not (request.if_exists == "skip" and is_file(job.target)):
        require_place(job.target, "`output`" if request.output else "the result")


def _prepare_folders(planned: UpscalePlan) -> None:
    """Make the output folders and clear what killed runs left in them. Raises OutputError."""
    folders = {job.target.parent for job in planned.jobs if job.target is not None}
    for folder in sorted(folders | ({planned.page.parent} if planned.page is not None else set())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"the folder {folder} cannot be made: {reason}; choose another `output`") from None
        remove_stale_temps(folder)


def _page(planned: UpscalePlan, request: UpscaleRequest, processes: Processes) -> ComparePage | None:
    """The compare page, if there is to be one; in processes other than rank 0 their part of it."""
    if planned.page is None:
        return None
    if processes.is_rank_0:
        return ComparePage(planned.page, goes_on=request.if_exists == "skip" and is_file(planned.page))
    return ComparePage(temp_beside(planned.page), part=True)


Part = tuple[list[Outcome], Path | None, DreamsrError | None]
"""What one process brings home: what became of its files, its part of the compare page, and what stopped it."""


def _combined(parts: list[Part], worker: _Worker) -> Counts:
    """In rank 0: show what the others did, complete the compare page, and raise what stopped any of them."""
    for outcomes, _, _ in parts:
        for outcome in outcomes:
            worker.tell(outcome)
    for _, part, _ in parts[1:]:
        if worker.page is not None and part is not None:
            worker.page.take_in(part)
    for _, _, fatal in parts:
        if fatal is not None:
            raise fatal
    if worker.page is not None and parts:
        worker.page.finish()
    return worker.summary if parts else Counts()  # rank 0 has counted this process's files


class _Worker:
    """Does one job after the other with one set of weights."""

    def __init__(
        self,
        request: UpscaleRequest,
        settings: Settings,
        options: Options,
        make_upscaler: Callable[[], Enlarger],
        watcher: Watcher,
        write_stream: Callable[[bytes], None],
        page: ComparePage | None,
    ) -> None:
        self.request, self.settings, self.options, self.page = request, settings, options, page
        self.make_upscaler, self.watcher, self.write_stream = make_upscaler, watcher, write_stream
        self.upscaler: Enlarger | None = None
        self.fatal: DreamsrError | None = None
        self.summary: Counts = Counter()

    def tell_problems(self, problems: Sequence[Problem]) -> None:
        """Inputs that could not even be planned have failed."""
        for problem in problems:
            self.tell(Outcome(problem.name, None, "failed", problem.reason))

    def tell(self, outcome: Outcome) -> None:
        """Count and pass on; nothing is kept, so that ten thousand files take no more memory than ten."""
        self.summary[outcome.status] += 1
        self.watcher.finished(outcome)

    def run(self, job: Job) -> None:
        """Do one job and tell of it; whatever goes wrong with this file alone becomes its outcome."""
        self.watcher.started(job)
        began = time.monotonic()
        facts: dict[str, Any] = {}
        try:
            status, facts = self._do(job)
            error = None
        except BrokenPipeError:
            raise  # nobody reads what we write: there is no next file
        except (DreamsrError, OSError, MemoryError) as problem:
            if problem is self.fatal:
                raise
            status, error = "failed", _reason(job, problem)
        except Exception as problem:
            if os.environ.get("DREAMSR_TRACEBACK"):
                raise
            status, error = "failed", f"{job.source.label}: internal error ({type(problem).__name__}: {problem})"
        outcome = Outcome(
            str(job.source.path),
            "-" if job.target is None else str(job.target),
            status,
            error,
            job.input_width,
            job.input_height,
            job.width,
            job.height,
            job.format,
            round(time.monotonic() - began, 3),
            **facts,
        )
        self.tell(outcome)

    def _do(self, job: Job) -> tuple[Status, dict[str, Any]]:
        if job.target is not None and self._may_skip(job, job.target):
            return "skipped", {}
        if self.options.dry_run:
            return "planned", {}
        if job.target is not None:
            require_place(job.target, "`output`" if self.request.output else "the result")
        picture = self._read(job)
        if (picture.width, picture.height) != (job.input_width, job.input_height):
            raise ImageError(
                f"{job.source.label} was {job.input_width}x{job.input_height} px when the work was planned and is "
                f"{picture.width}x{picture.height} now; enlarge it again"
            )
        _check_alpha(picture, job.format)
        result, weights = self._enlarged(picture, job)
        data = encode_picture(result, format=job.format, quality=self.options.quality, strip=self.options.strip)
        self._write(job, data)
        return "done", {"weights": weights, **self._facts(job, picture, result)}

    def _read(self, job: Job) -> Picture:
        source = self.request.data if job.source.is_stream else job.source.path
        accepts = self.options.accept_damaged
        try:
            return read_picture(source, max_pixels=self.request.max_pixels, accept_damaged=accepts)
        except DamagedError as error:
            raise DamagedError(f"{error} `accept_damaged` enlarges it as it is") from None

    def _may_skip(self, job: Job, target: Path) -> bool:
        """Whether the output is there, whole and of the right size. Raises OutputError for a whole one of another."""
        if self.request.if_exists != "skip" or not is_file(target) or not is_complete_picture(target):
            return False
        info = probe_picture(target, max_pixels=1 << 34)
        if (info.width, info.height) != (job.width, job.height):
            raise OutputError(
                f"{job.target_label} exists with {info.width}x{info.height} instead of {job.width}x{job.height} px; "
                "choose `if_exists` overwrite, or another `output`"
            )
        return True

    def _enlarged(self, picture: Picture, job: Job) -> tuple[Picture, str | None]:
        """The result, and the weights it was made with."""
        if self.upscaler is None:
            try:
                self.upscaler = self.make_upscaler()
            except DreamsrError as error:
                self.fatal = error  # no other file would fare better
                raise

        def on_progress(progress: Progress) -> None:
            self.watcher.progressed(job, progress.fraction)

        chosen: list[str] = []
        result = self.upscaler.enlarge_picture(
            picture, job.height, job.width, self.settings, on_progress=on_progress, on_choice=chosen.append
        )
        return result, chosen[0] if chosen else None

    def _write(self, job: Job, data: bytes) -> None:
        if job.target is None:
            self.write_stream(data)
            return
        if self.request.if_exists in ("error", "rename") and is_file(job.target):
            raise OutputError(f"{job.target_label} has appeared meanwhile; choose `if_exists` overwrite or rename")
        write_bytes_atomically(job.target, data)

    def _facts(self, job: Job, picture: Picture, result: Picture) -> dict[str, Any]:
        """What is known of a finished file beyond its sizes."""
        lost = not_written(result, job.format, strip=self.options.strip)
        facts: dict[str, Any] = {"notes": (*picture.notes, *lost)}
        if self.options.consistency:
            from dreamsr.measure.consistency import consistency_db

            facts["consistency_db"] = round(consistency_db(result.pixels, picture.pixels), 2)
        if self.page is not None:
            self.page.add(make_slider(job.source.label, picture, result))
        return facts


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
