"""Enlarge many files (or one): streamed, each reported, none lost, whatever happens to the others."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from dreamsr.claims import Claims, remove_stale_claims
from dreamsr.disk import remove_stale_temps, temp_beside
from dreamsr.errors import DreamsrError, OutputError
from dreamsr.folders import Problem, is_file
from dreamsr.outputs import require_place
from dreamsr.processes import Processes, joined
from dreamsr.upscaling.compare import ComparePage
from dreamsr.upscaling.forecast import Forecast
from dreamsr.upscaling.outcome import Counts, Keeper, Outcome, Watcher
from dreamsr.upscaling.pipeline import Pipeline
from dreamsr.upscaling.plan import Job, OnPlanning, UpscalePlan, UpscaleRequest, plan
from dreamsr.upscaling.settings import Settings
from dreamsr.upscaling.stages import Enlarger, Options, Stages

ENDINGS = ("SIGTERM", "SIGHUP")
"""What asks a process to end, besides ctrl-C."""


def upscale_files(
    request: UpscaleRequest,
    settings: Settings,
    options: Options,
    *,
    make_upscaler: Callable[[], Enlarger],
    watcher: Watcher,
    write_stream: Callable[[bytes], None],
    on_planning: OnPlanning | None = None,
    forecast: Forecast | None = None,
) -> Counts:
    """Plan, then enlarge this process's share of the files. The weights are loaded when the first file needs them.

    `forecast` learns from it how long such work takes.
    Failures of single files are reported, not raised. Raises UsageError and OutputError from planning, and
    WeightsError or DeviceError where nothing can be computed at all.
    """
    with ending_cleanly(), joined() as processes:
        planned = _shared_plan(request, options, processes, on_planning)
        if planned is None:
            return Counts()
        keeper = Keeper()
        teller = _Teller(watcher if processes.is_rank_0 else keeper)
        jobs = planned.jobs[processes.rank :: processes.world_size]
        teller.watcher.planned(jobs, planned.notes)
        page = None if options.dry_run else _page(planned, request, processes)
        stages = Stages(request, settings, options, make_upscaler, write_stream, page, forecast)
        fatal: DreamsrError | None = None
        try:
            if processes.is_rank_0:
                for problem in planned.problems:  # inputs that could not even be planned have failed
                    teller.tell(Outcome(problem.name, None, "failed", problem.reason))
            with Claims() if _is_shared(request, options) else contextlib.nullcontext() as claims:
                Pipeline(stages, teller.watcher, teller.tell, claims).run(jobs)
        except DreamsrError as error:
            fatal = error  # told only after the others, who wait for this process, have been heard
        parts: list[Part] = processes.gather((keeper.outcomes, page.path if page and page.begun else None, fatal))
        return _combined(parts, teller, page)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Inside, SIGTERM or SIGHUP raises SystemExit with 128 and its number; a second one ends the process at once.

    What is ignored (nohup) stays so. Only a main thread hears signals.
    """
    numbers = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Teller:
    """Counts and passes on; nothing is kept, so that ten thousand files take no more memory than ten."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.summary: Counts = Counter()

    def tell(self, outcome: Outcome) -> None:
        """One file is through."""
        self.summary[outcome.status] += 1
        self.watcher.finished(outcome)


def _is_shared(request: UpscaleRequest, options: Options) -> bool:
    """Whether other processes may work on the same files: who skips what is there goes on with what others began."""
    return request.if_exists == "skip" and not options.dry_run


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
        remove_stale_claims(folder)


def _page(planned: UpscalePlan, request: UpscaleRequest, processes: Processes) -> ComparePage | None:
    """The compare page, if there is to be one; in processes other than rank 0 their part of it."""
    if planned.page is None:
        return None
    if processes.is_rank_0:
        return ComparePage(planned.page, goes_on=request.if_exists == "skip" and is_file(planned.page))
    return ComparePage(temp_beside(planned.page), part=True)


Part = tuple[list[Outcome], Path | None, DreamsrError | None]
"""What one process brings home: what became of its files, its part of the compare page, and what stopped it."""


def _combined(parts: list[Part], teller: _Teller, page: ComparePage | None) -> Counts:
    """In rank 0: show what the others did, complete the compare page, and raise what stopped any of them."""
    for outcomes, _, _ in parts:
        for outcome in outcomes:
            teller.tell(outcome)
    for _, part, _ in parts[1:]:
        if page is not None and part is not None:
            page.take_in(part)
    for _, _, fatal in parts:
        if fatal is not None:
            raise fatal
    if page is not None and parts:
        page.finish()
    return teller.summary if parts else Counts()  # rank 0 has counted this process's files
