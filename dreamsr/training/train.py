"""Train a denoiser on pictures, with or without DREAM, in one process or many; stop and go on at any step.

Crops, times and noise are pure functions of (seed, number), so a resumed run equals an uninterrupted one, and two
processes equal one with twice the batch. Only rank 0 writes files, validates and reports.
"""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
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
from dreamsr.processes import TrainingProcesses, launched
from dreamsr.training.config import TrainConfig
from dreamsr.training.loader import Batches, Loader, draws, step_numbers
from dreamsr.training.memory import require_room_for_state, require_room_for_steps, way_out
from dreamsr.training.request import NOBODY, Listener, RunRequest
from dreamsr.training.results import checkpoints
from dreamsr.training.results.log import TrainLog, TrainProgress
from dreamsr.training.results.places import require_place
from dreamsr.training.resuming import with_short_warmup
from dreamsr.training.speed import Stopwatch, peak_memory_mb
from dreamsr.training.start import Start
from dreamsr.training.state import Run, begin
from dreamsr.training.step import Stepper, StepResult
from dreamsr.training.stopping import StopRequest, exit_for
from dreamsr.weights.file import FILE_NAME

if TYPE_CHECKING:
    from dreamsr.training.results.validation import Validator

MAX_BAD_STEPS = 5
"""Steps in a row without a finite loss after which a run is given up."""
LEAST_STEPS_DRAWN = 100
"""Curves of fewer steps show nothing."""


def train(request: RunRequest, listener: Listener = NOBODY) -> Path:
    """Train until `request.config.max_steps` and return the weights file, OUT/model.safetensors (the average's).

    SIGTERM, SIGHUP and ctrl-C save and end the process with 143, 129 and 130; `request.resume` goes on from there, with
    the settings that may change (`dreamsr.training.resuming`).
    Raises DataError for unusable data, OutputError where OUT holds a run that is not to be resumed or would destroy
    what is read, ConfigError for settings that do not go together, DeviceError where memory is short, TrainingError if
    losses stay non-finite.
    """
    asked = request.config
    with launched(request.device, asked.precision, accumulate=asked.accumulate) as processes:
        return train_together(processes, request, listener)


def train_together(processes: TrainingProcesses, request: RunRequest, listener: Listener = NOBODY) -> Path:
    """`train`, in processes that are joined already."""
    start, listener = request.start, listener if processes.is_rank_0 else NOBODY
    config = processes.broadcast(processes.on_rank_0(lambda: _settled(request, processes, listener)))
    pairs = processes.together(lambda: _open(request, config, listener))
    _require_agreement(processes, request.config, pairs)
    processes.together(lambda: require_room_for_state(config.model, processes.compute.device))
    run = processes.together(lambda: _begin(config, processes, start))
    begun_with = start and start.origin
    if request.resume:
        begun_with = processes.broadcast(processes.on_rank_0(lambda: checkpoints.kept_origin(request.out)))
    facts = {**_facts(processes, pairs), **(begun_with or {})}
    session = Session(replace(request, config=config), processes, run, facts, listener)
    session.open(pairs)
    session.work(Batches(pairs, config, rank=processes.rank, world=processes.world_size))
    return request.out / FILE_NAME


def _settled(request: RunRequest, processes: TrainingProcesses, listener: Listener) -> TrainConfig:
    """The settings to train with, once it is known that the run's folder may be written."""
    out, on_notice = request.out, listener.on_notice
    weights = None if request.start is None else request.start.file
    require_place(out, request.source, request.valid, weights=weights)
    config = with_short_warmup(request.config, on_notice)
    return checkpoints.check_folder(out, config, resume=request.resume, world=processes.world_size, on_notice=on_notice)


def _begin(config: TrainConfig, processes: TrainingProcesses, start: Start | None) -> Run:
    if start is None:
        return begin(config, processes.compute, None)
    return begin(config, processes.compute, start.state, partial=start.partial)


def _open(request: RunRequest, config: TrainConfig, listener: Listener) -> CropPairs:
    """The crops of a run; tells how many photos there are and which cannot be used. Raises DataError."""
    pairs = open_source(request.source, config.crops, workers=request.workers, on_progress=listener.on_scan)
    drawn = (
        f", and drawn pictures for {config.drawn_share:.0%} of the crops ({len(pairs.fonts)} fonts)"
        if pairs.fonts
        else ""
    )
    listener.on_notice(f"{len(pairs)} photos in {_name(request.source)}{drawn}")
    for reason in pairs.refused:
        listener.on_notice(f"not used: {reason}")
    return pairs


def _name(source: DataSource) -> str:
    return str(source.data) if source.data is not None else f"{source.hr} and {source.lr}"


def _require_agreement(processes: TrainingProcesses, config: TrainConfig, pairs: CropPairs) -> None:
    """Processes, perhaps on several machines, must have been given the same. Ends all with DataError."""
    seen = processes.gather((to_mapping(config), pairs.fingerprint()))
    for rank, (settings, fingerprint) in enumerate(seen):
        if settings != seen[0][0]:
            processes.fail(DataError(f"process {rank} was started with other settings than process 0; start all alike"))
        if fingerprint != seen[0][1]:
            processes.fail(
                DataError(f"process {rank} sees other data than process 0; give all machines the same pictures")
            )


def _facts(processes: TrainingProcesses, pairs: CropPairs) -> dict[str, Any]:
    """What is written beside settings into config.json and into the weights' headers; no paths, which are private."""
    return {
        "dreamsr": dreamsr.__version__,
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "python": platform.python_version(),
        "data": pairs.fingerprint(),
        "photos": len(pairs),
        **({"fonts": list(pairs.fonts)} if pairs.fonts else {}),
        "device": str(processes.compute.device),
        "processes": processes.world_size,
    }


class Session:
    """One call of `train`, once it is known what is trained on what."""

    def __init__(
        self, request: RunRequest, processes: TrainingProcesses, run: Run, facts: Mapping[str, Any], listener: Listener
    ) -> None:
        self.request, self.processes, self.run, self.facts, self.listener = request, processes, run, facts, listener
        self.config, self.out = request.config, request.out
        self.stopwatch = Stopwatch(self.config)
        self.validator: Validator | None = None
        self.log: TrainLog | None = None
        self._bad_steps: list[dict[str, Any]] = []

    def open(self, pairs: CropPairs) -> None:
        """Make the folder ready, and go back to the latest checkpoint of a run that is resumed."""
        config, processes, out, valid = self.config, self.processes, self.out, self.request.valid
        if valid is not None:
            self.validator = processes.on_rank_0(lambda: _open_validation(valid, config, out))
        if self.request.resume:
            processes.on_rank_0(lambda: checkpoints.check_data(out, pairs.fingerprint()))
            state = processes.broadcast(
                processes.on_rank_0(lambda: checkpoints.newest_state(out, self.listener.on_notice))
            )
            processes.together(lambda: _load(self.run, state, out))
        processes.together(lambda: require_room_for_steps(self.run, config, processes.compute))
        facts = {**self.facts, "source": _name(self.request.source), "seed": config.seed}
        processes.on_rank_0(lambda: self._make_folder(facts))

    def _make_folder(self, facts: Mapping[str, Any]) -> None:
        checkpoints.make_folder(self.out)
        checkpoints.save_config(self.out, self.config, facts)
        self.log = TrainLog(self.out, from_step=self.run.step)

    def work(self, batches: Batches) -> None:
        """Take the steps that are left, validate and save now and then, and save at the end or at a stop."""
        config, run, processes = self.config, self.run, self.processes
        first, last = (step * config.accumulate for step in (run.step, max(run.step, config.max_steps)))
        pin = processes.compute.device.type == "cuda"
        with (
            closing(self),
            StopRequest() as stop,
            Loader(batches, first=first, last=last, workers=self.request.workers, pin=pin) as loader,
        ):
            stepper = Stepper(run, config, processes, loader)
            while run.step < config.max_steps:
                stopped = self._step(stepper, stop)
                if self._is_due(config.valid_every, at_end=True):
                    processes.on_rank_0(self._validate)
                if stopped and run.step < config.max_steps:
                    processes.on_rank_0(self._save)
                    self._end_by(stop)
                if self._is_due(config.save_every, at_end=False):
                    processes.on_rank_0(self._save)
            processes.on_rank_0(self._save)
        processes.on_rank_0(self._draw)

    def _is_due(self, every: int, *, at_end: bool) -> bool:
        """Whether what is done every so many steps is due now; at the end it is due in any case, or never."""
        step = self.run.step
        return at_end if step == self.config.max_steps else step % every == 0

    def _step(self, stepper: Stepper, stop: StopRequest) -> bool:
        """One optimizer step, reported and counted; whether the run is to stop after it."""
        began = time.perf_counter()
        try:
            result = stepper.advance(lambda: stop.asked)
        except Exception as error:
            raise self._explained(error) from error
        self.stopwatch.add(self.run.step, time.perf_counter() - began)
        if self.processes.is_rank_0:
            self._report(result, time.perf_counter() - began, stop)
        self._keep_bad_steps(result)
        return result.stop or (self.processes.world_size == 1 and stop.asked)

    def _explained(self, error: Exception) -> Exception:
        """What a user can do about an error in a step, where that is known."""
        if is_out_of_memory(error):
            device = self.processes.compute.device
            return DeviceError(
                f"{device} ran out of memory in a step of `batch_size` {self.config.batch_size}; "
                + way_out(self.config, self.config.batch_size // 2)
            )
        if self.processes.world_size > 1 and isinstance(error, RuntimeError) and "peer" in str(error):
            return TrainingError("another process of this run has ended; its own message says why")
        return error

    def _report(self, result: StepResult, seconds: float, stop: StopRequest) -> None:
        config, run, watch = self.config, self.run, self.stopwatch
        speed = len(step_numbers(config, 0, self.processes.world_size)) / seconds
        memory = peak_memory_mb(self.processes.compute.device)
        left = watch.seconds_left(run.step)
        rate, losses = result.learning_rate, (result.loss, result.base_loss)
        stage = (result.stage, result.parts)
        progress = TrainProgress(run.step, config.max_steps, *losses, rate, speed, left, memory, run.skipped, *stage)
        if self.log is not None:
            self.log.step(progress)
        if watch.is_due and run.step < config.max_steps:
            usual = len(step_numbers(config, 0, self.processes.world_size)) / watch.seconds_per_step
            self.listener.on_notice(watch.forecast(run.step, usual, memory))
        if not stop.hung_up:  # which nobody could see any more
            try:
                self.listener.on_progress(progress)
            except KeyboardInterrupt:
                stop.ask(signal.SIGINT)

    def _keep_bad_steps(self, result: StepResult) -> None:
        """Remember steps without a finite loss; after too many in a row write them down and give up."""
        if result.finite:
            self._bad_steps.clear()
            return
        step = self.run.step - 1
        numbers = step_numbers(self.config, step, self.processes.world_size)
        times = [draws(self.config, number, (0,))[1] for number in numbers]
        facts = {"step": step, "numbers": list(numbers), "t": times, **asdict(result)}
        self._bad_steps.append(facts)
        if self.run.bad_steps >= MAX_BAD_STEPS:
            dump = self.out / f"bad-step-{self.run.step}.pt"
            self.processes.on_rank_0(lambda: checkpoints.write_state(dump, {"bad_steps": self._bad_steps}))
            self.processes.fail(
                TrainingError(
                    f"the loss was not finite in {MAX_BAD_STEPS} steps in a row (step {self.run.step}); lower "
                    f"`learning_rate` or use `precision` fp32; {dump} holds crops, times and losses of these steps"
                )
            )

    def _validate(self) -> None:
        if self.validator is None:
            return
        run, average = self.run, self.run.ema.module
        with evaluating(average):
            config = self.config
            denoiser = build_denoiser(config.model, average, compute=self.processes.compute, traits=config.traits)
            found = self.validator(denoiser, run.step)
        if run.best_score is None or found.score > run.best_score:
            run.best_score = found.score
            facts = {**self.facts, "score": found.score}
            checkpoints.save_average(self.out / checkpoints.BEST, run, self.config, facts)
        if self.log is not None:
            self.log.validation(found)
        self.listener.on_validation(found)

    def _save(self) -> None:
        checkpoints.save(self.out, self.run, self.config, self.facts)

    def _end_by(self, stop: StopRequest) -> None:
        """End as the signal asks that any process has heard, the run being saved."""
        number = next(one for one in self.processes.gather(stop.signal) if one is not None)
        self.listener.on_notice(f"stopped by {number.name} at step {self.run.step}; go on with `resume`")
        raise exit_for(number)

    def _draw(self) -> None:
        if self.run.step < LEAST_STEPS_DRAWN:
            return
        from dreamsr.training.results.curves import draw_curves

        if draw_curves(self.out) is None:
            self.listener.on_notice('no curves are drawn without matplotlib; pip install "dreamsr[bench]" adds it')

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()


def _open_validation(folder: Path, config: TrainConfig, out: Path) -> Validator:
    from dreamsr.training.results.validation import open_validation

    return open_validation(folder, config, out)


def _load(run: Run, state: Mapping[str, Any], out: Path) -> None:
    try:
        run.load(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{out}: its checkpoint does not fit this version or net ({error})") from None
