"""What becomes of each file, and who is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from dreamsr.upscaling.plan import Job

Status = Literal["planned", "done", "skipped", "failed"]

Counts = Counter[Status]
"""How many files ended how, over all processes; complete in rank 0 only."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input. Sizes in pixels, 0 where unknown; `seconds` of work on it, the `weights` chosen."""

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
    """Who is told how the work goes on, from one thread, about one file after the other in the order of the plan.

    A file may be finished only after work on the next has begun.
    """

    def planned(self, jobs: Sequence[Job], notes: Sequence[str]) -> None:
        """The jobs of this process, before the first."""

    def started(self, job: Job) -> None:
        """Work on one file begins."""

    def progressed(self, job: Job, fraction: float) -> None:
        """Work on one file goes on, 0 to 1."""

    def finished(self, outcome: Outcome) -> None:
        """One file is done, skipped or has failed."""

    def waiting(self, count: int) -> None:
        """All that is left are so many files that other processes work on."""


class Keeper:
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

    def waiting(self, count: int) -> None:
        """Nobody to show it to."""
