"""Files through their stages: one is read ahead and another written behind while the net works on a third.

Order is kept, and memory bounded: what is read or still to be written besides the picture in work has no more than
`BESIDE_PX` pixels, so large pictures are read, enlarged and written one after the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from dreamsr.claims import Claims, is_claimed
from dreamsr.errors import DreamsrError
from dreamsr.upscaling.outcome import Outcome, Watcher
from dreamsr.upscaling.plan import Job
from dreamsr.upscaling.settings import Progress
from dreamsr.upscaling.stages import Stages, Task

BESIDE_PX = 16_000_000
"""Of results, counted for what is read ahead, too."""
BESIDE = 4
"""How many results may wait to be written."""
LOOK_SECONDS = 0.2
"""Between two looks at what other processes work on."""


class Pipeline:
    """Runs jobs; `tell` hears each outcome, in order. With `claims` other processes may work on the same ones.

    Where something ends it, what has been enlarged is still written and told.
    """

    def __init__(
        self, stages: Stages, watcher: Watcher, tell: Callable[[Outcome], None], claims: Claims | None
    ) -> None:
        self.stages, self.watcher, self.tell, self.claims = stages, watcher, tell, claims
        self._behind: deque[tuple[int, Future[Task]]] = deque()

    def run(self, jobs: Sequence[Job]) -> None:
        """All jobs, those last that other processes work on: they are done here where those end without a result."""
        told = False
        while jobs:
            left = self._round(jobs)
            if left and len(left) == len(jobs):
                if not told:
                    self.watcher.waiting(len(left))
                told = True
                time.sleep(LOOK_SECONDS)
            jobs = left

    def _round(self, jobs: Sequence[Job]) -> list[Job]:
        """Each job once; those that others work on come back."""
        left: list[Job] = []
        reader, writer = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("read", "write"))
        try:
            for job, task in self._read_ahead(jobs, reader):
                if task is None or not self._take(task):
                    left.append(job)
                    continue
                self.watcher.started(task.job)
                self.stages.enlarge(task, partial(self._progressed, task.job))
                self._behind.append((task.job.result_px, writer.submit(self._write, task)))
                self._tell_written(BESIDE, BESIDE_PX)
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()
            self._tell_written(0, 0)
        return left

    def _read_ahead(self, jobs: Sequence[Job], reader: ThreadPoolExecutor) -> Iterator[tuple[Job, Task | None]]:
        """Each job with its picture; with None where another process works on it."""
        to_come = deque(jobs)
        ahead: deque[tuple[Job, Future[Task | None]]] = deque()
        while to_come or ahead:
            while to_come and (not ahead or (len(ahead) == 1 and _together(ahead[0][0], to_come[0]) <= BESIDE_PX)):
                job = to_come.popleft()
                ahead.append((job, reader.submit(self._read, job)))
            job, picture = ahead.popleft()
            yield job, picture.result()

    def _read(self, job: Job) -> Task | None:
        if self.claims is not None and job.target is not None and is_claimed(job.target):
            return None
        return self.stages.read(job)

    def _take(self, task: Task) -> bool:
        """Whether the task is this process's, and what is left to do of it."""
        if self.claims is None or task.status is not None or task.job.target is None:
            return True
        if not self.claims.take(task.job.target):
            return False
        self.stages.look_again(task)
        return True

    def _write(self, task: Task) -> Task:
        try:
            self.stages.write(task)
        finally:
            if self.claims is not None and task.job.target is not None:
                self.claims.give_back(task.job.target)
        return task

    def _progressed(self, job: Job, progress: Progress) -> None:
        try:
            self._tell_written(BESIDE, BESIDE_PX)
            self.watcher.progressed(job, progress.fraction)
        except DreamsrError as error:
            self.stages.fatal = error  # it is none of this file: nobody can be told any more
            raise

    def _tell_written(self, most: int, most_px: int) -> None:
        """Tell of all that is written, and wait until no more than so much is left."""
        while self._behind:
            too_many = len(self._behind) > most or sum(px for px, _ in self._behind) > most_px
            if not too_many and not self._behind[0][1].done():
                return
            self.tell(self._behind.popleft()[1].result().outcome())


def _together(job: Job, other: Job) -> int:
    return job.result_px + other.result_px
