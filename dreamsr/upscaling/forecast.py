"""How long the work will take, by what the same weights took on this machine before.

Nothing is computed for its sake: every run that enlarges pictures notes what it took in the user's cache. What has
never run here is not guessed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamsr.config import from_mapping, require
from dreamsr.disk import cache_folder, ensure_folder, json_text, read_json, write_bytes_atomically
from dreamsr.errors import ConfigError, DreamsrError, WeightsError
from dreamsr.upscaling.outcome import Outcome
from dreamsr.upscaling.plan import Job
from dreamsr.upscaling.settings import OnProgress, Progress
from dreamsr.upscaling.sizes import Size, plan_passes
from dreamsr.weights.registry import describe_weights
from dreamsr.weights.resolve import local_file

KEPT = 50
"""How many kinds of runs are remembered, the latest ones."""
MEMORY_MP = 2.0
"""What earlier runs count for, at most: a machine's speed changes."""
LEAST_MP = 0.01
"""Less says nothing: everything around the net takes longer than the net."""
NO_WORK_S = 1e-4
"""What is over so soon was no evaluation of a net, but a tile of one colour."""


@dataclass(frozen=True)
class Pace:
    """What weights took here: seconds to load, and seconds per megapixel for what follows.

    Of what nets start from: `condition_s` for what is computed once, `step_s` for each step. Of results: `rest_s` for
    reading, writing and all else. `known_mp`: from how much of what nets start from this is known.
    """

    scales: tuple[int, ...]
    continuous: bool
    default_steps: int
    load_s: float
    condition_s: float
    step_s: float
    rest_s: float
    known_mp: float

    def __post_init__(self) -> None:
        for name in ("load_s", "condition_s", "step_s", "rest_s", "known_mp"):
            require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or more")
        require(min(self.scales, default=0) >= 1, "scales", self.scales, "some of 1 or more")
        require(self.default_steps >= 1, "default_steps", self.default_steps, "1 or more")

    def seconds(self, job: Job | Outcome, steps: int) -> float:
        """For one picture, with the weights loaded."""
        net_mp = net_megapixels(job, self.scales, continuous=self.continuous)
        return net_mp * (self.condition_s + steps * self.step_s) + job.height * job.width / 1e6 * self.rest_s

    def mixed(self, earlier: Pace | None) -> Pace:
        """This and what was known before, each by how much it is known from."""
        if earlier is None:
            return self
        before = min(earlier.known_mp, MEMORY_MP)
        whole = self.known_mp + before

        def mean(now: float, then: float) -> float:
            return (now * self.known_mp + then * before) / whole

        return Pace(
            self.scales,
            self.continuous,
            self.default_steps,
            mean(self.load_s, earlier.load_s),
            mean(self.condition_s, earlier.condition_s),
            mean(self.step_s, earlier.step_s),
            mean(self.rest_s, earlier.rest_s),
            whole,
        )


def net_megapixels(job: Job | Outcome, scales: Sequence[int], *, continuous: bool) -> float:
    """Of the images that the passes of a job start from."""
    passes = plan_passes(job.input_height, job.input_width, job.height, job.width, scales, continuous=continuous)
    return sum(one.height * one.width for one in passes) / 1e6


@dataclass(frozen=True)
class Expectation:
    """The seconds that work will take, and those that a single step would, where there are more."""

    seconds: float
    with_one_step: float | None = None


class Forecast:
    """What earlier runs called `key` say of the work to come, and what this run adds to them.

    `steps` None means as many as the weights recommend.
    """

    def __init__(self, key: str, steps: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.key, self.steps, self.clock = key, steps, clock
        self.known = _kept().get(key)
        self._facts: tuple[tuple[int, ...], bool, int] | None = None
        self._job: Job | None = None
        self._load_s = self._condition_s = self._step_s = self._rest_s = 0.0
        self._condition_mp = self._step_mp = self._result_mp = 0.0
        self._fraction = self._last = 0.0
        self._evaluations = 0

    def expected(self, jobs: Sequence[Job]) -> Expectation | None:
        """None where such a run has never been."""
        if self.known is None:
            return None
        pace, steps = self.known, self.steps or self.known.default_steps
        seconds = pace.load_s + sum(pace.seconds(job, steps) for job in jobs)
        quicker = pace.load_s + sum(pace.seconds(job, 1) for job in jobs)
        return Expectation(seconds, quicker if steps > 1 else None)

    def seconds_for(self, planned: Outcome) -> float | None:
        """What one picture will take; None where such a run has never been."""
        return None if self.known is None else self.known.seconds(planned, self.steps or self.known.default_steps)

    def loaded(self, scales: Sequence[int], continuous: bool, default_steps: int, seconds: float) -> None:
        """The weights are there, after so long."""
        self._facts, self._load_s = (tuple(scales), continuous, default_steps), seconds

    def hearing(self, job: Job, on_progress: OnProgress) -> OnProgress:
        """The net begins with a picture: what hears of its evaluations here, and tells `on_progress`."""
        self._job, self._fraction, self._evaluations, self._last = job, 0.0, 0, self.clock()

        def hear(progress: Progress) -> None:
            self._evaluated(progress.fraction)
            on_progress(progress)

        return hear

    def finished(self, job: Job, beside_s: float) -> None:
        """A picture is written; reading and writing it took so long."""
        self._rest_s, self._result_mp = self._rest_s + beside_s, self._result_mp + job.result_px / 1e6

    def enlarged(self) -> None:
        """The net is done with the picture."""
        self._rest_s += self.clock() - self._last

    def keep(self) -> None:
        """Remember what this run took, if that says anything."""
        if self._facts is None or min(self._condition_mp, self._step_mp) < LEAST_MP or not self._result_mp:
            return
        took = Pace(
            *self._facts,
            self._load_s,
            self._condition_s / self._condition_mp,
            self._step_s / self._step_mp,
            self._rest_s / self._result_mp,
            self._condition_mp,
        )
        with contextlib.suppress(DreamsrError):  # a cache that cannot be written is no reason to fail
            _remember(self.key, took.mixed(self.known))

    def _evaluated(self, fraction: float) -> None:
        """One more evaluation of the net: for each tile one before the first step, and one for each step."""
        now = self.clock()
        seconds, self._last = now - self._last, now
        share, self._fraction = fraction - self._fraction, fraction
        if self._facts is None or self._job is None:
            return
        scales, continuous, default_steps = self._facts
        each = (self.steps or default_steps) + 1
        before_steps = self._evaluations % each == 0
        self._evaluations += 1
        if seconds < NO_WORK_S:
            return
        tile_mp = net_megapixels(self._job, scales, continuous=continuous) * share * each
        if before_steps:
            self._condition_s, self._condition_mp = self._condition_s + seconds, self._condition_mp + tile_mp
        else:
            self._step_s, self._step_mp = self._step_s + seconds, self._step_mp + tile_mp


def key_of(weights: str, size: Size, device: str, precision: str, tile: str, threads: int | None) -> str:
    """What speed depends on, as text. torch is not asked, as a plan needs none: `auto` means one thing here."""
    cores = threads or os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return json_text(
        [_weights_identity(weights), str(size), platform.node(), device, visible, precision, tile, str(cores)]
    )


def _weights_identity(name: str) -> str:
    """By content where that is known, else by place and time; the name itself for what is not here yet."""
    with contextlib.suppress(OSError, WeightsError):
        entry = describe_weights(name)
        if entry is not None:
            return entry.sha256
        path = local_file(name)
        if path is not None:
            return f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
    return name


def speeds_file() -> Path:
    """Where paces are kept."""
    return cache_folder() / "speeds.json"


def _kept() -> dict[str, Pace]:
    """All of them, the latest last; none where the file is missing or damaged."""
    try:
        found = read_json(speeds_file())
        return {key: from_mapping(Pace, value, source=key) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, ConfigError):
        return {}


def _remember(key: str, pace: Pace) -> None:
    """Raises OutputError."""
    paces = _kept()
    paces.pop(key, None)
    latest = dict([*paces.items(), (key, pace)][-KEPT:])
    ensure_folder(speeds_file().parent)
    write_bytes_atomically(speeds_file(), json_text({name: asdict(value) for name, value in latest.items()}).encode())
