"""Fit existing weights to a user's own pictures, and tell honestly what that gained there and cost elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dreamsr.config import from_mapping, to_mapping
from dreamsr.disk import ensure_folder, write_bytes_atomically
from dreamsr.errors import OutputError, UsageError, printable
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import encode_picture
from dreamsr.processes import launched
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.finetuning.before_after import GRID, REPORT, BeforeAfter, FinetuneReport
from dreamsr.training.finetuning.holdout import SHARE, HeldOut, held_out_by_user, hold_out
from dreamsr.training.request import NOBODY, Listener, RunRequest
from dreamsr.training.results.places import WRITTEN, require_place
from dreamsr.training.start import Start, origin
from dreamsr.training.train import train_together
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import FILE_NAME, load_weights
from dreamsr.weights.resolve import local_file, resolve_weights

HELD_OUT = "held-out"
FINETUNE = TrainConfig(
    dream=DreamConfig(power=1.0),
    max_steps=2_000,
    learning_rate=1e-4,
    warmup_steps=100,
    ema_halflife_steps=200.0,
    valid_every=500,
    valid_steps=(1, 4),
)
"""What to begin with for 10 to 500 pictures: a tenth of the rate of training anew, so that little is forgotten."""
AS_TRAINED = ("loss", "continuous_time", "valid_steps")
"""Settings that are those of the weights' own training, unless asked for."""


def suited(weights: str, listener: Listener = NOBODY) -> TrainConfig:
    """`FINETUNE` with what must go on as the weights were trained: loss, kind of times, DREAM's p, steps to measure at.

    Weights that were trained plainly, or that do not say, get the rest from `FINETUNE`. Raises WeightsError and
    DownloadError, and ConfigError where the file says what is impossible.
    """
    path = resolve_weights(weights, on_notice=listener.on_notice, on_progress=listener.on_download)
    facts = load_weights(path).facts
    trained = facts.get("train")
    trained = trained if isinstance(trained, Mapping) else {}
    kept = {name: trained[name] for name in AS_TRAINED if name in trained}
    dream = trained.get("dream")
    power = dream.get("power") if isinstance(dream, Mapping) else None
    if isinstance(power, int | float):  # plain training has no p; it is written as "inf"
        kept["dream"] = {**to_mapping(FINETUNE.dream), "power": power}
    source = f"how {printable(weights)} was trained"
    return from_mapping(TrainConfig, {**to_mapping(FINETUNE), **kept}, source=source)


def finetune(
    request: RunRequest, weights: str, *, share: float | None = None, listener: Listener = NOBODY
) -> FinetuneReport:
    """Train `weights` on, in one process or many; measure before and after on pictures that are not trained on.

    Those are the ones in the folder `request.valid`, or else a `share` (SHARE) of the request's own. Its model,
    `default_steps` and `start` count for nothing: the weights' own are taken. OUT/model.safetensors works like any
    other weights, and its header names what it was made from. Beside what `train` leaves, OUT holds report.json,
    before-after.png, and the held-out middles that every validation is made on (of given pairs none is made on the
    way, for it would need their small halves).
    Raises OutputError where OUT holds a run and is not to be resumed, or would destroy what is read; UsageError where
    share and folder are both given, WeightsError, and what `hold_out` and `train` raise.
    """
    asked, out = request.config, request.out
    with launched(request.device, asked.precision, accumulate=asked.accumulate) as processes:
        listener = listener if processes.is_rank_0 else NOBODY
        processes.on_rank_0(lambda: _require_start(request, weights))

        def opened(name: str | Path) -> Upscaler:
            device, precision, told = str(processes.compute.device), asked.precision, listener.on_notice
            return Upscaler(name, device, precision=precision, on_notice=told, on_download=listener.on_download)

        start = processes.together(lambda: opened(weights))
        config = replace(asked, model=start.weights.config, default_steps=start.default_steps)
        held: HeldOut = processes.broadcast(processes.on_rank_0(lambda: _held_out(request, config, share)))
        listener.on_notice(held.told)
        before = processes.on_rank_0(lambda: BeforeAfter(held, config, start))
        facts = origin(weights, start.path)
        run = replace(
            request,
            config=config,
            source=replace(request.source, exclude=request.source.exclude | held.left_out),
            valid=processes.broadcast(processes.on_rank_0(lambda: _validated_on(request, held))),
            start=Start(config.model, start.weights.net.state_dict(), facts, start.path),
        )
        path = train_together(processes, run, listener)
        report = processes.on_rank_0(lambda: before and before.reported(opened(path), out, facts))
        told: FinetuneReport = processes.broadcast(report)
    return told


def _require_start(request: RunRequest, weights: str) -> None:
    """A place without a finished run, whose report must not be lost; `train` looks after others."""
    out = request.out
    found = next((name for name in (REPORT, GRID, FILE_NAME) if (out / name).exists()), None)
    if found is not None and not request.resume:
        raise OutputError(
            f"{printable(out)}: holds {found} of a run already; go on with `resume` or choose another `out`"
        )
    require_place(out, request.source, request.valid, weights=local_file(weights), written=(*WRITTEN, HELD_OUT))


def _held_out(request: RunRequest, config: TrainConfig, share: float | None) -> HeldOut:
    if request.valid is None:
        return hold_out(request.source, config, share=SHARE if share is None else share)
    if share is not None:
        raise UsageError("pictures to measure on are given, and a share to hold out as well; choose one")
    return held_out_by_user(request.valid, request.source, config)


def _validated_on(request: RunRequest, held: HeldOut) -> Path | None:
    """The folder for validations on the way; of pictures from the request's own, their middles are written there."""
    if request.valid is not None or not held.examples or request.source.data is None:
        return request.valid
    return _write_held_out(held, request.out)


def _write_held_out(held: HeldOut, out: Path) -> Path:
    """The middles of the held-out pictures as files, numbered so that names may come from several folders."""
    folder = out / HELD_OUT
    ensure_folder(folder, advice="choose another `out`")
    for number, one in enumerate(held.examples):
        name = f"{number:02d}-{Path(one.name).stem[:100]}.png"
        write_bytes_atomically(folder / name, encode_picture(Picture(one.truth), format="PNG"))
    return folder
