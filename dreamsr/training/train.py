"""Train a denoiser on pictures, with or without DREAM, in one process or many; stop and go on at any step.

Crops, times and noise are pure functions of (seed, number), so a resumed run equals an uninterrupted one, and two
processes equal one with twice the batch. Only the leading process writes files, validates and reports.
"""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import dreamsr
from dreamsr.config import to_mapping
from dreamsr.core.denoiser import evaluating
from dreamsr.core.model import build_denoiser
from dreamsr.data.sources import CropPairs, DataSource, open_source
from dreamsr.errors import DataError, DeviceError, TrainingError
from dreamsr.measure.memory import is_out_of_memory
from dreamsr.training import checkpoints
from dreamsr.training.config import Stage, TrainConfig
from dreamsr.training.launch import Crew, launched
from dreamsr.training.loader import Batches, Loader, draws, step_numbers
from dreamsr.training.memory import require_room_for_state, require_room_for_steps, way_out
from dreamsr.training.places import require_place
from dreamsr.training.resuming import with_short_warmup
from dreamsr.training.speed import Stopwatch, peak_memory_mb
from dreamsr.training.start import Start
from dreamsr.training.state import Run, begin
from dreamsr.training.step import Stepper, StepResult
from dreamsr.training.stopping import HANGUP, StopRequest, exit_for
from dreamsr.weights.file import FILE_NAME

if TYPE_CHECKING:
    from dreamsr.training.log import TrainLog
    from dreamsr.training.validation import Validation, Validator

MAX_BAD_STEPS = 5
"""Steps in a row without a finite loss after which a run is given up."""
LEAST_STEPS_DRAWN = 100
"""Curves of fewer steps show nothing."""


@dataclass(frozen=True)
class Progress:
    """One optimizer step as told to the caller: step counts from 1; losses and speed are those of all processes.

    seconds_left: at the speed of the latest steps. peak_memory_mb: of the GPU, or of this process; 0 if unknown.
    skipped: updates left out so far because a loss was not finite. parts: in finishing, the unweighted losses by name.
    """

    step: int
    max_steps: int
    loss: float
    base_loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    peak_memory_mb: float
    skipped: int
    stage: Stage = "plain"
    parts: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]
OnNotice = Callable[[str], None]
OnValidation = Callable[["Validation"], None]


def train(
    config: TrainConfig,
    source: DataSource,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    workers: int = 0,
    valid: Path | None = None,
    start: Start | None = None,
    on_progress: OnProgress | None = None,
    on_notice: OnNotice | None = None,
    on_validation: OnValidation | None = None,
) -> Path:
    """Train until `config.max_steps` and return the weights file, `out/model.safetensors` (the average's).

    workers: processes that prepare crops beside the one that trains; the result does not depend on them. valid: a
    folder of pictures to measure on. start: weights to begin with, of which config.json and the new weights'
    headers tell; a resumed run keeps its own.
    SIGTERM, SIGHUP and ctrl-C save and end the process with 143, 129 and 130; `resume` goes on from there, with the
    settings that may change (`dreamsr.training.resuming`).
    Raises DataError for unusable data, OutputError where `out` holds a run that is not to be resumed or would destroy
    what is read, ConfigError for settings that do not go together, DeviceError where memory is short, TrainingError if
    losses stay non-finite.
    """
    with launched(device, config.precision, accumulate=config.accumulate) as crew:
        hear = on_notice if crew.leads and on_notice is not None else _nobody
        weights = None if start is None else start.file
        crew.lead(lambda: require_place(out, source, valid, weights=weights))
        given = config
        config = crew.share(crew.lead(lambda: _settled(out, given, crew, resume=resume, hear=hear)))
        pairs = crew.together(lambda: _open(source, config, workers, hear))
        _require_agreement(crew, given, pairs)
        crew.together(lambda: require_room_for_state(config.model, crew.compute.device))
        run = crew.together(lambda: _begin(config, crew, start))
        begun_with = crew.share(crew.lead(lambda: checkpoints.kept_origin(out))) if resume else start and start.origin
        facts = {**_facts(crew, pairs), **(begun_with or {})}
        session = Session(config, crew, run, out, facts, hear, on_progress, on_validation)
        session.open(valid, source, pairs, resume=resume)
        session.work(Batches(pairs, config, rank=crew.rank, world=crew.world), workers)
    return out / FILE_NAME


def _settled(out: Path, config: TrainConfig, crew: Crew, *, resume: bool, hear: OnNotice) -> TrainConfig:
    """The settings to train with, once it is known that `out` may be written."""
    config = with_short_warmup(config, hear)
    return checkpoints.check_folder(out, config, resume=resume, world=crew.world, on_notice=hear)


def _begin(config: TrainConfig, crew: Crew, start: Start | None) -> Run:
    if start is None:
        return begin(config, crew.compute, None)
    return begin(config, crew.compute, start.state, partial=start.partial)


def _nobody(_notice: str) -> None:
    """Hears the notices of a run that nobody listens to, or of a process that does not lead."""


def _open(source: DataSource, config: TrainConfig, workers: int, hear: OnNotice) -> CropPairs:
    """The crops of a run; tells how many photos there are and which cannot be used. Raises DataError."""
    pairs = open_source(source, config.crops, workers=workers)
    drawn = (
        f", and drawn pictures for {config.drawn_share:.0%} of the crops ({len(pairs.fonts)} fonts)"
        if pairs.fonts
        else ""
    )
    hear(f"{len(pairs)} photos in {_name(source)}{drawn}")
    for reason in pairs.refused:
        hear(f"not used: {reason}")
    return pairs


def _name(source: DataSource) -> str:
    return str(source.data) if source.data is not None else f"{source.hr} and {source.lr}"


def _require_agreement(crew: Crew, config: TrainConfig, pairs: CropPairs) -> None:
    """Processes, perhaps on several machines, must have been given the same. Ends all with DataError."""
    told = crew.gather((to_mapping(config), pairs.fingerprint()))
    for rank, (settings, fingerprint) in enumerate(told):
        if settings != told[0][0]:
            crew.fail(DataError(f"process {rank} was started with other settings than process 0; start all alike"))
        if fingerprint != told[0][1]:
            crew.fail(DataError(f"process {rank} sees other data than process 0; give all machines the same pictures"))


def _facts(crew: Crew, pairs: CropPairs) -> dict[str, Any]:
    """What is written beside settings into config.json and into the weights' headers; no paths, which are private."""
    return {
        "dreamsr": dreamsr.__version__,
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "python": platform.python_version(),
        "data": pairs.fingerprint(),
        "photos": len(pairs),
        **({"fonts": list(pairs.fonts)} if pairs.fonts else {}),
        "device": str(crew.compute.device),
        "processes": crew.world,
    }


class Session:
    """One call of `train`, once it is known what is trained on what."""

    def __init__(
        self,
        config: TrainConfig,
        crew: Crew,
        run: Run,
        out: Path,
        facts: Mapping[str, Any],
        hear: OnNotice,
        on_progress: OnProgress | None,
        on_validation: OnValidation | None,
    ) -> None:
        self.config, self.crew, self.run, self.out, self.facts = config, crew, run, out, facts
        self.hear, self.on_progress, self.on_validation = hear, on_progress, on_validation
        self.stopwatch = Stopwatch(config)
        self.validator: Validator | None = None
        self.log: TrainLog | None = None
        self._bad_steps: list[dict[str, Any]] = []

    def open(self, valid: Path | None, source: DataSource, pairs: CropPairs, *, resume: bool) -> None:
        """Make the folder ready, and go back to the latest checkpoint of a run that is resumed."""
        config, crew, out = self.config, self.crew, self.out
        if valid is not None:
            self.validator = crew.lead(lambda: _open_validation(valid, config, out))
        if resume:
            crew.lead(lambda: checkpoints.check_data(out, pairs.fingerprint()))
            state = crew.share(crew.lead(lambda: checkpoints.newest_state(out, self.hear)))
            crew.together(lambda: _load(self.run, state, out))
        crew.together(lambda: require_room_for_steps(self.run, config, crew.compute))
        told = {**self.facts, "source": _name(source), "seed": config.seed}
        crew.lead(lambda: self._make_folder(told))

    def _make_folder(self, facts: Mapping[str, Any]) -> None:
        from dreamsr.training.log import TrainLog

        checkpoints.make_folder(self.out)
        checkpoints.save_config(self.out, self.config, facts)
        self.log = TrainLog(self.out, from_step=self.run.step)

    def work(self, batches: Batches, workers: int) -> None:
        """Take the steps that are left, validate and save now and then, and save at the end or at a stop."""
        config, run, crew = self.config, self.run, self.crew
        first, last = (step * config.accumulate for step in (run.step, max(run.step, config.max_steps)))
        pin = crew.compute.device.type == "cuda"
        with (
            closing(self),
            StopRequest() as stop,
            Loader(batches, first=first, last=last, workers=workers, pin=pin) as loader,
        ):
            stepper = Stepper(run, config, crew, loader)
            while run.step < config.max_steps:
                stopped = self._step(stepper, stop)
                if self._is_due(config.valid_every, at_end=True):
                    crew.lead(self._validate)
                if stopped and run.step < config.max_steps:
                    crew.lead(self._save)
                    self._tell_stop(stop)
                if self._is_due(config.save_every, at_end=False):
                    crew.lead(self._save)
            crew.lead(self._save)
        crew.lead(self._draw)

    def _is_due(self, every: int, *, at_end: bool) -> bool:
        """Whether what is done every so many steps is due now; at the end it is due in any case, or never."""
        step = self.run.step
        return at_end if step == self.config.max_steps else step % every == 0

    def _step(self, stepper: Stepper, stop: StopRequest) -> bool:
        """One optimizer step, told and counted; whether the run is to stop after it."""
        began = time.perf_counter()
        try:
            result = stepper.advance(lambda: stop.asked)
        except Exception as error:
            raise self._explained(error) from error
        self.stopwatch.add(self.run.step, time.perf_counter() - began)
        if self.crew.leads:
            self._report(result, time.perf_counter() - began, stop)
        self._keep_bad_steps(result)
        return result.stop or (self.crew.world == 1 and stop.asked)

    def _explained(self, error: Exception) -> Exception:
        """What a user can do about an error in a step, where that is known."""
        if is_out_of_memory(error):
            return DeviceError(
                f"{self.crew.compute.device} ran out of memory in a step of --batch-size {self.config.batch_size}; "
                + way_out(self.config, self.config.batch_size // 2)
            )
        if self.crew.world > 1 and isinstance(error, RuntimeError) and "peer" in str(error):
            return TrainingError("another process of this run has ended; its own message says why")
        return error

    def _report(self, result: StepResult, seconds: float, stop: StopRequest) -> None:
        config, run, watch = self.config, self.run, self.stopwatch
        speed = len(step_numbers(config, 0, self.crew.world)) / seconds
        memory = peak_memory_mb(self.crew.compute.device)
        left = watch.seconds_left(run.step)
        rate, losses = result.learning_rate, (result.loss, result.base_loss)
        stage = (result.stage, result.parts)
        progress = Progress(run.step, config.max_steps, *losses, rate, speed, left, memory, run.skipped, *stage)
        if self.log is not None:
            self.log.step(progress)
        if watch.is_due and run.step < config.max_steps:
            usual = len(step_numbers(config, 0, self.crew.world)) / watch.seconds_per_step
            self.hear(watch.told(run.step, usual, memory))
        if self.on_progress is not None and stop.signal is not HANGUP:  # which nobody could see any more
            try:
                self.on_progress(progress)
            except KeyboardInterrupt:
                stop.ask(signal.SIGINT)

    def _keep_bad_steps(self, result: StepResult) -> None:
        """Remember steps without a finite loss; after too many in a row write them down and give up."""
        if result.finite:
            self._bad_steps.clear()
            return
        step = self.run.step - 1
        numbers = step_numbers(self.config, step, self.crew.world)
        times = [draws(self.config, number, (0,))[1] for number in numbers]
        facts = {"step": step, "numbers": list(numbers), "t": times, **asdict(result)}
        self._bad_steps.append(facts)
        if self.run.bad_steps >= MAX_BAD_STEPS:
            dump = self.out / f"bad-step-{self.run.step}.pt"
            self.crew.lead(lambda: checkpoints.write_state(dump, {"bad_steps": self._bad_steps}))
            self.crew.fail(
                TrainingError(
                    f"the loss was not finite in {MAX_BAD_STEPS} steps in a row (step {self.run.step}); lower "
                    f"--learning-rate or use --precision fp32; {dump} holds crops, times and losses of these steps"
                )
            )

    def _validate(self) -> None:
        if self.validator is None:
            return
        run, average = self.run, self.run.ema.module
        with evaluating(average):
            denoiser = build_denoiser(self.config.model, average, compute=self.crew.compute)
            found = self.validator(denoiser, run.step)
        if run.best_score is None or found.score > run.best_score:
            run.best_score = found.score
            facts = {**self.facts, "score": found.score}
            checkpoints.save_average(self.out / checkpoints.BEST, run, self.config, facts)
        if self.log is not None:
            self.log.validation(found)
        if self.on_validation is not None:
            self.on_validation(found)

    def _save(self) -> None:
        checkpoints.save(self.out, self.run, self.config, self.facts)

    def _tell_stop(self, stop: StopRequest) -> None:
        """End as the signal asks that any process has heard, the run being saved."""
        number = next(heard for heard in self.crew.gather(stop.signal) if heard is not None)
        self.hear(f"stopped by {number.name} at step {self.run.step}; go on with --resume")
        raise exit_for(number)

    def _draw(self) -> None:
        if self.run.step < LEAST_STEPS_DRAWN:
            return
        from dreamsr.training.curves import draw_curves

        if draw_curves(self.out) is None:
            self.hear('no curves are drawn without matplotlib; pip install "dreamsr[bench]" adds it')

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()


def _open_validation(folder: Path, config: TrainConfig, out: Path) -> Validator:
    from dreamsr.training.validation import open_validation

    return open_validation(folder, config, out)


def _load(run: Run, state: Mapping[str, Any], out: Path) -> None:
    try:
        run.load(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{out}: its checkpoint does not fit this version or net ({error})") from None
