"""The arms of a study as training runs: how long they are, what is kept of them, and who is working on which."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock

from dreamsr.data.sources import DataSource
from dreamsr.disk import json_text, read_json, write_bytes_atomically
from dreamsr.errors import UsageError
from dreamsr.study.systems import Arm, arm_called
from dreamsr.training.request import Listener, RunRequest
from dreamsr.training.results.checkpoints import checkpoints, step_of
from dreamsr.training.train import train
from dreamsr.training.trial import try_steps

CURVE_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
"""The parts of its steps after which a net is kept and measured."""
TIMED_ROUNDS = 15
MOST_STEPS = 100_000
"""Stands for all sampling steps: more than a process can have."""

OnNotice = Callable[[str], None]


@dataclass(frozen=True)
class StudyPlan:
    """What is trained and measured.

    arms: the runs. settings: of all of them, as `FIELD=VALUE`. max_steps: training steps of each.
    sample_steps: numbers of sampling steps for the tables; those above T mean T. curve_steps: for the curves over
    training. stochasticity: of the sampler, 1 is ancestral. crops: held-out crops that are measured.
    """

    arms: tuple[Arm, ...]
    settings: tuple[str, ...] = ()
    max_steps: int = 10_000
    sample_steps: tuple[int, ...] = (5, 20, 100, MOST_STEPS)
    curve_steps: int = 20
    stochasticity: float = 1.0
    crops: int = 64

    def __post_init__(self) -> None:
        if not self.arms or not self.sample_steps:
            raise UsageError("a study needs one or more systems, powers, seeds and numbers of steps")
        if min(self.max_steps, self.crops, self.curve_steps, *self.sample_steps) < 1:
            raise UsageError("`max_steps`, `sample_steps`, `curve_steps` and `crops` must all be 1 or more")
        if not 0 <= self.stochasticity <= 1:
            raise UsageError(f"`stochasticity` is {self.stochasticity:g}, but it must be in 0..1")

    def steps_of(self, arm: Arm) -> tuple[int, ...]:
        """The numbers of sampling steps that the tables show of an arm, rising."""
        most = self._timesteps(arm)
        return tuple(sorted({min(steps, most) for steps in self.sample_steps}))

    def curve_steps_of(self, arm: Arm) -> int:
        return min(self.curve_steps, self._timesteps(arm))

    def _timesteps(self, arm: Arm) -> int:
        return arm.config(self.max_steps, self.settings).model.process.timesteps


@dataclass(frozen=True)
class Studio:
    """The folder of a study, what its runs are made from, and which networks judge (`measure.lpips.NETS`)."""

    plan: StudyPlan
    data: DataSource
    out: Path
    device: str = "auto"
    judges: tuple[str, ...] = ("alex",)
    on_notice: OnNotice = lambda _text: None

    def folder(self, arm: Arm) -> Path:
        return self.out / arm.name

    def kept(self, arm: Arm, steps: int) -> Path:
        """The weights of an arm after so many training steps."""
        return self.folder(arm) / f"at-{steps:06d}.safetensors"

    def is_complete(self, arm: Arm) -> bool:
        return all(self.kept(arm, steps).exists() for steps in {self.plan.max_steps, self.equal_time_steps(arm)})

    def complete_arms(self) -> list[Arm]:
        """All that are trained to their ends, those of other calls too: the plan's first, in its order."""
        found = [arm for path in sorted(self.out.iterdir()) if (arm := arm_called(path.name)) is not None]
        arms = dict.fromkeys((*self.plan.arms, *found))
        return [arm for arm in arms if self.is_complete(arm)]

    def equal_time_steps(self, arm: Arm) -> int:
        """So many training steps of an arm take as long as `max_steps` plain ones; of a plain arm these themselves.

        In whole hundredths of `max_steps`: no finer does a clock tell.
        """
        most = self.plan.max_steps
        if math.isinf(arm.power):
            return most
        hundredth = max(1, most // 100)
        return min(most, max(1, round(most / self.overhead(arm) / hundredth)) * hundredth)

    def overhead(self, arm: Arm) -> float:
        """Time of a training step with DREAM over one without, for the arm's system: measured once, and kept.

        That is forward, backward and update, on one CPU thread in the process's own time, so that busy neighbours do
        not count.
        """
        path = self.out / f"overhead-{arm.system}.json"
        if not path.exists():
            found = try_steps(
                arm.config(self.plan.max_steps, self.plan.settings), device=self.device, rounds=TIMED_ROUNDS
            )
            write_bytes_atomically(path, json_text({"ratio": found.ratio, **asdict(found)}).encode())
            self.on_notice(f"{arm.system}: a step with DREAM takes {found.ratio:.2f} times one without")
        return float(read_json(path)["ratio"])

    @property
    def curve_lengths(self) -> list[int]:
        """After how many training steps the weights of every arm are kept, rising."""
        return sorted({max(1, round(share * self.plan.max_steps)) for share in CURVE_SHARES})

    def lengths(self, arm: Arm) -> list[int]:
        """After how many training steps an arm's weights are kept, rising."""
        return sorted({*self.curve_lengths, self.equal_time_steps(arm)})

    def train(self, arm: Arm) -> None:
        """Train an arm from where it is to its end, keeping its weights on the way. A stopped run ends as `train` does.

        A run that was part of a shorter study goes on; what it would have kept before its newest checkpoint it lacks.
        """
        folder, config = self.folder(arm), arm.config(self.plan.max_steps, self.plan.settings)
        done = next((step_of(path) for path in checkpoints(folder)), 0)
        for steps in [steps for steps in self.lengths(arm) if steps >= done and not self.kept(arm, steps).exists()]:
            self.on_notice(f"{arm.name}: training to step {steps:,} of {self.plan.max_steps:,}")
            request = RunRequest(
                replace(config, max_steps=steps),
                self.data,
                folder,
                device=self.device,
                resume=bool(checkpoints(folder)),
            )
            path = train(request, Listener(on_notice=self._heard))
            write_bytes_atomically(self.kept(arm, steps), path.read_bytes())

    def _heard(self, text: str) -> None:
        if text.startswith("about "):
            self.on_notice(text)

    @contextmanager
    def alone(self, arm: Arm) -> Iterator[bool]:
        """Whether nobody else works on the arm, which is held until the end; a process that dies lets go of it."""
        lock = filelock.FileLock(self.out / f"{arm.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
