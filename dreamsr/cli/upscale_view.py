"""How `dreamsr upscale` shows its work: bars on a terminal, lines in a log, JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, cast, get_args

from dreamsr.cli import console
from dreamsr.cli.spelling import as_typed
from dreamsr.cli.train_view import duration
from dreamsr.errors import UsageError, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from dreamsr.upscaling.forecast import Forecast
    from dreamsr.upscaling.outcome import Counts, Outcome, Status
    from dreamsr.upscaling.plan import Job

NAME_CHARS = 40
SILENT_SECONDS = 1.0
"""How long planning may take without a word."""

LONG_SECONDS = 10.0
"""What is expected to take longer is told before it begins."""
WORTH_SAYING = 0.7
"""How much of the time a cheaper way may take to be named."""

Kind = Literal["bar", "lines", "json", "none"]
EVERY_SECONDS: dict[Kind, float] = {"lines": 30.0, "json": 0.5}
"""How long progress without bars may be silent."""


def checked_kind(name: str) -> Kind:
    """`name`, where it is a kind of progress. Raises UsageError."""
    for kind in get_args(Kind):
        if name == kind:
            return cast("Kind", kind)
    raise UsageError(f"--progress is {name!r}, but it must be {', '.join(get_args(Kind))}")


class UpscaleReport:
    """Hears what a batch does (it is the batch's watcher) and shows it. Errors are shown even when quiet."""

    def __init__(
        self,
        bars: Bars | None,
        *,
        as_json: bool,
        quiet: bool,
        progress: Kind = "bar",
        forecast: Forecast | None = None,
        dry_run: bool = False,
        skips: bool = False,
    ) -> None:
        self.bars, self.as_json, self.quiet = bars, as_json, quiet
        self.forecast, self.dry_run, self.skips = forecast, dry_run, skips
        self.progress: Kind = "lines" if progress == "bar" and bars is None else progress
        self.began = self.told = time.monotonic()
        self.told_phases: set[str] = set()
        self.worked_since: float | None = None
        self.total_px = self.done_count = 0
        self.jobs = 0
        self.started_count = self.finished_count = 0
        self.finished_px = 0
        self.px_under_way: dict[str, float] = {}
        self.overall: TaskID | None = None
        self.current: tuple[str, TaskID] | None = None
        self.download: TaskID | None = None

    def planning(self, files: int | None) -> None:
        """One of so many files has been looked at; None where they are still being found."""
        phase = "finding" if files is None else "looking"
        if phase not in self.told_phases and time.monotonic() - self.began > SILENT_SECONDS:
            self.told_phases.add(phase)
            self.noticed("finding pictures" if files is None else f"looking at {files} files")

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None:
        """The jobs of this process, before the first."""
        self.jobs = len(jobs)
        self.total_px = sum(job.result_px for job in jobs)
        for text in notes:
            self.noticed(text)
        self._tell_expected(jobs)
        if self.bars is not None and len(jobs) > 1:
            # Time goes with pixels: counting files would promise nonsense where sizes differ.
            self.overall = self.bars.add_task("", total=self.total_px)

    def started(self, job: Job) -> None:
        """Work on one file begins."""
        self.started_count += 1
        if self.worked_since is None:
            self.worked_since = self.told = time.monotonic()
        if self.bars is not None:
            self._drop_bar()
            name = str(job.source.path)
            self.current = name, self.bars.add_task(_short(job.source.label), total=1.0)
            self._show_overall()

    def progressed(self, job: Job, fraction: float) -> None:
        """Work on one file goes on, 0 to 1."""
        self.px_under_way[str(job.source.path)] = fraction * job.result_px
        self._tell_progress(job, fraction)
        if self.bars is not None and self.current is not None:
            self.bars.update(self.current[1], completed=fraction)
            self._show_overall()

    def finished(self, outcome: Outcome) -> None:
        """One file is done, skipped or has failed; the next may have been started."""
        self.px_under_way.pop(outcome.input, None)
        if self.current is not None and self.current[0] == outcome.input:
            self._drop_bar()
        self.finished_count += 1
        self.done_count += outcome.status in ("done", "skipped")
        self.finished_px += outcome.width * outcome.height
        self._show_overall()
        if self.as_json:
            console.say_json(_plain(outcome) | self._expected_seconds(outcome))
        if outcome.status == "failed":
            console.fail(outcome.error or f"{outcome.input} failed")
        elif not self.quiet:
            console.note(_line(outcome))
        for text in outcome.notes:
            if not self.quiet:
                console.warn(f"{outcome.input}: {text}")

    def waiting(self, count: int) -> None:
        """All that is left are so many files that other processes work on."""
        self.noticed(f"waiting for {count} file(s) that other processes work on")

    def summarize(self, summary: Counts) -> None:
        """One line on everything, where there was more than one file."""
        if self.quiet or summary.total() < 2:
            return
        order: tuple[Status, ...] = ("planned", "done", "skipped", "failed")
        told = ", ".join(f"{summary[status]} {status}" for status in order if summary[status])
        console.note(f"{told} in {time.monotonic() - self.began:.1f} s")

    def interrupted(self) -> None:
        """The user ended it: what is there stays, and how to go on."""
        if self.jobs > 1:
            self.noticed(f"{self.done_count} of {self.jobs} done; go on with --if-exists skip")

    def noticed(self, text: str) -> None:
        """Something worth knowing."""
        if not self.quiet:
            console.note(text)

    def downloaded(self, done: int, total: int) -> None:
        """Bytes of the weights that have arrived."""
        if self.bars is None:
            return
        if self.download is None:
            self.download = self.bars.add_task("weights", total=total)
        self.bars.update(self.download, completed=done, total=total)
        if done >= total:
            self.bars.remove_task(self.download)
            self.download = None

    def _tell_expected(self, jobs: Sequence[Job]) -> None:
        """How long it will take, where that is worth a line; that it is not known, where it was asked for."""
        from dreamsr.folders import is_file

        to_do = [job for job in jobs if not (self.skips and job.target and is_file(job.target))]
        if self.forecast is None or not to_do:
            return
        expected = self.forecast.expected(to_do)
        if expected is None:
            if self.dry_run:
                self.noticed("how long it takes is not known: these weights have not worked here in this way yet")
            return
        quicker = expected.with_one_step
        if self.progress == "json":
            event = {"event": "estimate", "seconds": round(expected.seconds, 1)}
            console.say_json(event | ({} if quicker is None else {"seconds_with_one_step": round(quicker, 1)}))
        if self.dry_run or expected.seconds >= LONG_SECONDS:
            pays = quicker is not None and quicker < WORTH_SAYING * expected.seconds
            cheaper = f"; with --steps 1 about {duration(quicker)}" if quicker is not None and pays else ""
            self.noticed(f"about {duration(expected.seconds)}{cheaper}")

    def _expected_seconds(self, outcome: Outcome) -> dict[str, float]:
        """For programs that ask for a plan: what one picture will take, where that is known."""
        expected = self.forecast.seconds_for(outcome) if self.forecast and outcome.status == "planned" else None
        return {} if expected is None else {"expected_seconds": round(expected, 2)}

    def _tell_progress(self, job: Job, fraction: float) -> None:
        """A line or an event, where the last is long enough ago."""
        every, now = EVERY_SECONDS.get(self.progress), time.monotonic()
        if every is None or now - self.told < every or (self.quiet and self.progress == "lines"):
            return
        self.told = now
        left = self._seconds_left(now)
        if self.progress == "json":
            event = {"event": "progress", "input": str(job.source.path), "fraction": round(fraction, 4)}
            files = {"finished": self.finished_count, "files": self.jobs}
            console.say_json(event | files | ({} if left is None else {"seconds_left": round(left, 1)}))
            return
        which = f" ({self.started_count} of {self.jobs})" if self.jobs > 1 else ""
        soon = "" if left is None else f", about {duration(left)} left"
        console.note(f"{job.source.label}{which}: {fraction:.0%}{soon}")

    def _seconds_left(self, now: float) -> float | None:
        """Until all is done, at the speed so far; None as long as nothing is known. Time goes with pixels."""
        done = self._px_done()
        if not done or self.worked_since is None:
            return None
        return max(0.0, (now - self.worked_since) * (self.total_px - done) / done)

    def _px_done(self) -> float:
        return self.finished_px + sum(self.px_under_way.values())

    def _show_overall(self) -> None:
        if self.bars is not None and self.overall is not None:
            text = f"{self.finished_count} of {self.jobs} files"
            self.bars.update(self.overall, completed=self._px_done(), description=text)

    def _drop_bar(self) -> None:
        if self.bars is not None and self.current is not None:
            self.bars.remove_task(self.current[1])
            self.current = None


def _line(outcome: Outcome) -> str:
    sizes = f"{outcome.input_width}x{outcome.input_height} to {outcome.width}x{outcome.height}"
    if outcome.status == "planned":
        return f"{outcome.input} -> {outcome.output}  {sizes}, {outcome.format}"
    if outcome.status == "skipped":
        return f"{outcome.input} -> {outcome.output}  skipped: it is there and whole"
    measured = "" if outcome.consistency_db is None else f", consistency {outcome.consistency_db:.1f} dB"
    return f"{outcome.input} -> {outcome.output}  {sizes} in {outcome.seconds:.1f} s{measured}"


def _plain(outcome: Outcome) -> dict[str, object]:
    """The fields that are known."""
    values = {key: value for key, value in asdict(outcome).items() if value not in (None, ())}
    if outcome.error is not None:
        values["error"] = as_typed(outcome.error)
    return values


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= NAME_CHARS else "…" + name[1 - NAME_CHARS :]
