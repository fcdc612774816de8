"""The folder of a training run and what of it survives a crash.

    config.json               settings, versions, data, seed, device
    checkpoints/step-N.pt     all that is needed to go on bit for bit; the last few
    model.safetensors         the averaged weights of the latest checkpoint, to enlarge with
    best.safetensors          those of the best validation
    bad-step-N.pt             what led to losses that were not finite, where the run was stopped for them

Files are written whole or not at all, the checkpoint first: whenever the run is killed, the one before is there.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from dreamsr.config import from_mapping, to_mapping
from dreamsr.disk import ensure_folder, json_text, read_json, remove_stale_temps, write_bytes_atomically
from dreamsr.errors import OutputError, TrainingError, printable
from dreamsr.training.config import TrainConfig
from dreamsr.training.resuming import continued
from dreamsr.training.start import ORIGIN
from dreamsr.training.state import Run
from dreamsr.weights.file import FILE_NAME, save_weights

FOLDER = "checkpoints"
CONFIG = "config.json"
BEST = "best.safetensors"
Facts = Mapping[str, Any]


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((out / FOLDER).glob("step-*.pt"), key=step_of, reverse=True)


def _path(out: Path, step: int) -> Path:
    return out / FOLDER / f"step-{step:06d}.pt"


def step_of(path: Path) -> int:
    """The optimizer step of a checkpoint by its name; -1 for another file."""
    number = path.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def check_folder(
    out: Path, config: TrainConfig, *, resume: bool, world: int, on_notice: Callable[[str], None]
) -> TrainConfig:
    """Make sure that `out` is free, or holds a run that can go on with `config`; the settings to train with.

    Raises OutputError.
    """
    exists = bool(checkpoints(out))
    if exists and not resume:
        raise OutputError(f"{out}: holds a training run already; go on with `resume` or choose another `out`")
    if resume and not exists:
        raise OutputError(f"{out}: holds no checkpoint to resume; leave out `resume` to start a run")
    if not resume:
        _require_free(out)
        return config
    kept = _kept_config(out)
    before = from_mapping(TrainConfig, kept["train"], source=str(out / CONFIG))
    step, processes = step_of(checkpoints(out)[0]), (int(kept.get("processes", 1)), world)
    try:
        return continued(before, config, step=step, processes=processes, on_notice=on_notice)
    except OutputError as error:
        raise OutputError(f"{out}: {error}") from None


def _require_free(out: Path) -> None:
    """Raise OutputError where a new run in `out` would replace what another one or another program left."""
    if (out / FILE_NAME).exists():
        raise OutputError(f"{out}: holds {FILE_NAME} already, which would be replaced; choose another `out`")
    if not (out / CONFIG).exists():
        return
    try:
        _kept_config(out)
    except OutputError:
        raise OutputError(
            f"{out}: holds a {CONFIG} that no run wrote, which would be replaced; choose another `out`"
        ) from None


def _kept_config(out: Path) -> dict[str, Any]:
    try:
        kept = read_json(out / CONFIG)
        if isinstance(kept, dict) and isinstance(kept.get("train"), dict):
            return kept
        reason = "not the configuration of a run"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise OutputError(f"{out / CONFIG}: cannot be read ({reason}), so the run cannot be resumed")


def kept_origin(out: Path) -> dict[str, Any]:
    """What the run in `out` said of the weights that it began with; empty if it began with none."""
    kept = _kept_config(out)
    return {ORIGIN: kept[ORIGIN]} if ORIGIN in kept else {}


def check_data(out: Path, fingerprint: str) -> None:
    """Make sure that a resumed run sees the data that it was started with. Raises OutputError."""
    if _kept_config(out).get("data") != fingerprint:
        raise OutputError(f"{out}: the run to resume was started with other data; give it the same, or start a new run")


def make_folder(out: Path) -> None:
    """Make the run's folder, once it is known that there is something to train on, and clear what kills left."""
    for folder in (out, out / FOLDER):
        ensure_folder(folder, advice="choose another `out`")
        remove_stale_temps(folder)


def save_config(out: Path, config: TrainConfig, facts: Facts) -> None:
    """Write how the run is made."""
    write_bytes_atomically(out / CONFIG, json_text({"train": to_mapping(config), **facts}, indent=2).encode())


def save(out: Path, run: Run, config: TrainConfig, facts: Facts) -> None:
    """Write a checkpoint and the average's weights, and remove checkpoints beyond the last `keep_last`."""
    write_state(_path(out, run.step), run.state())
    save_average(out / FILE_NAME, run, config, facts)
    kept = [path for path in checkpoints(out) if step_of(path) <= run.step][: config.keep_last]
    for path in checkpoints(out):
        if path not in kept:  # too old, or ahead: one that could not be read when the run was resumed
            path.unlink(missing_ok=True)


def save_average(path: Path, run: Run, config: TrainConfig, facts: Facts) -> None:
    """Write the average's weights in float32, with how they were made."""
    told = {**facts, "train": to_mapping(config), "steps": run.step, "default_steps": config.usual_steps}
    save_weights(path, run.ema.module.state_dict(), config.model, facts=told, dtype=torch.float32)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and texts in torch's format, atomically."""
    buffer = BytesIO()
    torch.save(state, buffer)
    write_bytes_atomically(path, buffer.getbuffer())


def newest_state(out: Path, on_notice: Callable[[str], None]) -> dict[str, Any]:
    """The content of the newest checkpoint that can be read; tells of those that cannot. Raises TrainingError."""
    reason = "no checkpoint"
    for path in checkpoints(out):
        try:
            return read_state(path)
        except TrainingError as error:
            reason = str(error)
            on_notice(f"{reason}; trying the one before")
    raise TrainingError(f"{reason}; no other checkpoint is left, start a new run in another folder")


def read_state(path: Path) -> dict[str, Any]:
    """The content of one checkpoint. Raises TrainingError for a damaged one, one flipped bit included."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()  # torch.load compares no checksums
        if bad is not None:
            raise TrainingError(f"{path}: damaged (wrong checksum of {bad})")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its text advises to load such a file all the same
        raise TrainingError(
            f"{path}: refused, it holds more than tensors and texts; only checkpoints of `dreamsr train` are read"
        ) from None
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, EOFError) as error:
        raise TrainingError(f"{path}: damaged ({printable(str(error))})") from None
    except zipfile.BadZipFile as error:
        raise TrainingError(f"{path}: damaged ({error})") from None
    return state
