"""Fit existing weights to a user's own pictures, and tell honestly what that gained there and cost elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dreamsr.config import from_mapping, to_mapping
from dreamsr.disk import ensure_folder, file_sha256, json_text, write_bytes_atomically
from dreamsr.errors import OutputError, UsageError, printable
from dreamsr.measure.machine import environment
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import encode_picture
from dreamsr.processes import is_alone
from dreamsr.training.config import DreamConfig, TrainConfig
from dreamsr.training.finetuning.holdout import SHARE, HeldOut, hold_out
from dreamsr.training.finetuning.sanity import sanity_picture
from dreamsr.training.request import NOBODY, Listener, RunRequest
from dreamsr.training.results.places import WRITTEN, require_place
from dreamsr.training.results.sample_grid import Column, blown_up, sample_grid
from dreamsr.training.results.validation import (
    MAX_LOW_PX,
    Example,
    Images,
    Validator,
    ValidRow,
    counted,
    degraded_example,
)
from dreamsr.training.start import Start, origin
from dreamsr.training.train import train
from dreamsr.upscaling.upscaler import Upscaler
from dreamsr.weights.file import FILE_NAME, load_weights
from dreamsr.weights.resolve import local_file, resolve_weights

REPORT = "report.json"
GRID = "before-after.png"
HELD_OUT = "held-out"
SHOWN_PICTURES = 3
WORSE_DB = 0.1
WORSE_LPIPS = 0.01
PROTOCOL = (
    f"middle of each picture, at most {MAX_LOW_PX} small px a side; PSNR and SSIM on MATLAB's luma, `scale` px of "
    "border left out; LPIPS alex v0.1 on RGB; seeds 0, 1, ... by picture; stochasticity 0; back-projected as by upscale"
)
Pictures = Literal["held-out", "sanity"]
Facts = Mapping[str, Any]
Judges = dict[Pictures, Validator]
"""Who measures on what."""

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


@dataclass(frozen=True)
class FinetuneRow:
    """What fine-tuning changed at one number of denoising steps: on held-out pictures, or on the sanity picture."""

    pictures: Pictures
    bicubic: ValidRow
    before: ValidRow
    after: ValidRow

    @property
    def steps(self) -> int:
        return self.after.steps

    @property
    def worse(self) -> bool:
        """Whether the loss is one that people would see: PSNR-Y fell by .1 dB, or LPIPS rose by .01."""
        before, after = self.before.lpips_alex, self.after.lpips_alex
        duller = before is not None and after is not None and after - before > WORSE_LPIPS
        return duller or self.before.psnr_y - self.after.psnr_y > WORSE_DB


@dataclass(frozen=True)
class FinetuneReport:
    """The weights that were made, what they were measured on, and how: `told` says in words what was held out."""

    weights: Path
    rows: tuple[FinetuneRow, ...]
    held_out: tuple[str, ...]
    told: str


def finetune(request: RunRequest, weights: str, *, share: float = SHARE, listener: Listener = NOBODY) -> FinetuneReport:
    """Train `weights` on, on all of `request.source` but a `share` of its pictures; measure before and after.

    The request's model, `default_steps`, `valid` and `start` count for nothing: the weights' own are taken, and the
    pictures held out. OUT/model.safetensors works like any other weights, and its header names what it was made from.
    Beside what `train` leaves, OUT holds report.json, before-after.png, and the held-out middles that every validation
    is made on (of given pairs none is made on the way, for it would need their small halves).
    Raises OutputError where OUT holds a run and is not to be resumed, or would destroy what is read; UsageError in
    several processes, WeightsError, and what `hold_out` and `train` raise.
    """
    out, source, on_notice = request.out, request.source, listener.on_notice
    _require_start(out, resume=request.resume)
    require_place(out, source, None, weights=local_file(weights), written=(*WRITTEN, HELD_OUT))
    device, precision = request.device, request.config.precision
    start = Upscaler(weights, device, precision=precision, on_notice=on_notice, on_download=listener.on_download)
    config = replace(request.config, model=start.weights.config, default_steps=start.default_steps)
    held = hold_out(source, config, share=share)
    on_notice(held.told)
    judges = _judges(held, config)
    before = _enlarged(judges, start)
    facts = origin(weights, start.path)
    run = replace(
        request,
        config=config,
        source=replace(source, exclude=source.exclude | frozenset(held.names)),
        valid=_write_held_out(held, out) if held.examples and source.data is not None else None,
        start=Start(config.model, start.weights.net.state_dict(), facts, start.path),
    )
    tuned = Upscaler(train(run, listener), device, precision=precision)
    return _reported(out, held, judges, before, tuned, facts)


def _require_start(out: Path, *, resume: bool) -> None:
    """One process, and a place without a finished run, whose report must not be lost; `train` looks after others."""
    if not is_alone():
        raise UsageError("fine-tuning works in one process; start it without torchrun and without accelerate launch")
    found = next((name for name in (REPORT, GRID, FILE_NAME) if (out / name).exists()), None)
    if found is not None and not resume:
        raise OutputError(
            f"{printable(out)}: holds {found} of a run already; go on with `resume` or choose another `out`"
        )


def _judges(held: HeldOut, config: TrainConfig) -> Judges:
    """Those of a run, at one step and at as many as the weights recommend."""
    config = replace(config, valid_steps=(1, config.default_steps))
    drawn = degraded_example("sanity picture", sanity_picture(MAX_LOW_PX * config.model.scale), config, number=0)
    judges: Judges = {"held-out": Validator(held.examples, config)} if held.examples else {}
    return {**judges, "sanity": Validator([drawn], config)}


def _write_held_out(held: HeldOut, out: Path) -> Path:
    """The middles of the held-out pictures as files, numbered so that names may come from several folders."""
    folder = out / HELD_OUT
    ensure_folder(folder, advice="choose another `out`")
    for number, one in enumerate(held.examples):
        name = f"{number:02d}-{Path(one.name).stem[:100]}.png"
        write_bytes_atomically(folder / name, encode_picture(Picture(one.truth), format="PNG"))
    return folder


def _enlarged(judges: Judges, upscaler: Upscaler) -> dict[Pictures, Images]:
    return {name: judge.enlarged(upscaler.denoiser) for name, judge in judges.items()}


def _compared(name: Pictures, judge: Validator, before: Images, after: Images) -> list[FinetuneRow]:
    pairs = zip(judge.rows(before), judge.rows(after), strict=True)
    return [FinetuneRow(name, judge.bicubic, old, new) for old, new in pairs]


def _reported(
    out: Path, held: HeldOut, judges: Judges, before: Mapping[Pictures, Images], tuned: Upscaler, facts: Facts
) -> FinetuneReport:
    """Measure the tuned weights and write the report and the pictures."""
    after = _enlarged(judges, tuned)
    rows = tuple(row for name, judge in judges.items() for row in _compared(name, judge, before[name], after[name]))
    report = FinetuneReport(tuned.path, rows, held.names, held.told)
    write_bytes_atomically(out / REPORT, _as_json(report, facts, tuned).encode())
    write_bytes_atomically(out / GRID, _grid(judges, before, after))
    return report


def _as_json(report: FinetuneReport, facts: Facts, tuned: Upscaler) -> str:
    rows = [{**dataclasses.asdict(row), "steps": row.steps, "worse": row.worse} for row in report.rows]
    content = {
        "weights": {"file": report.weights.name, "sha256": file_sha256(report.weights)},
        **facts,
        "told": report.told,
        "held_out": report.held_out,
        "rows": rows,
        "protocol": PROTOCOL,
        "degradation": tuned.weights.facts["train"]["degradation"],
        "environment": environment(tuned.compute),
    }
    return json_text(content, indent=2) + "\n"


def _grid(judges: Judges, before: Mapping[Pictures, Images], after: Mapping[Pictures, Images]) -> bytes:
    """The first held-out pictures and the sanity picture: small, before, after, truth, at the recommended steps."""
    steps = max(judges["sanity"].steps)
    first: Sequence[Example] = [one for judge in judges.values() for one in judge.examples[:SHOWN_PICTURES]]
    olds, news = (
        [image for name in judges for image in found[name][steps][:SHOWN_PICTURES]] for found in (before, after)
    )
    return sample_grid(
        [
            Column("small", [blown_up(one.low, judges["sanity"].scale) for one in first]),
            Column(f"before, {counted(steps)}", olds),
            Column(f"after, {counted(steps)}", news),
            Column("truth", [one.truth for one in first]),
        ]
    )
