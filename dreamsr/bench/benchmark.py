"""Measure weights, interpolation and other tools on the same pictures, by rules that are named with every figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dreamsr.bench import report
from dreamsr.bench.calibration import Calibration, calibration
from dreamsr.bench.dataset import Dataset, open_datasets
from dreamsr.bench.methods import Command, Interpolation, Method, Outputs
from dreamsr.bench.places import Read, require_pictures, weights_files
from dreamsr.bench.protocol import choose_protocol
from dreamsr.bench.request import BenchRequest, ablation
from dreamsr.bench.store import Store, default_folder
from dreamsr.bench.sweep import Failure, OnSweepProgress, Result, Sweep
from dreamsr.bench.timing.race import Sample, drawn_sample, speed
from dreamsr.bench.timing.speed import Speed
from dreamsr.bench.weights import WeightsFacts, WeightsMethod, weights_name
from dreamsr.core.device import choose_compute
from dreamsr.data.shrinking import Degradation, parse_degradation
from dreamsr.errors import UsageError, printable
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.machine import environment
from dreamsr.outputs import require_folder
from dreamsr.weights.registry import automatic_weights

FORMAT = "dreamsr-bench-1"
OnNotice = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """All that was found. `results` are the single images, with their crops; `data` is what the JSON holds."""

    request: BenchRequest
    command_line: str
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    weights: Sequence[WeightsFacts]
    ablation: Mapping[str, Any] | None
    sets: Sequence[report.SetFacts]
    calibration: Sequence[Calibration]
    summary: Sequence[report.Summary]
    differences: Sequence[report.Compared]
    speed: Sequence[Speed]
    failures: Sequence[Failure]
    hints: Sequence[report.Hint]
    results: Sequence[Result]
    datasets: Sequence[Dataset]

    @property
    def failed(self) -> bool:
        """Whether some method could not finish."""
        return bool(self.failures)

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """As JSON values, but that infinite figures are numbers."""
        return {
            "format": FORMAT,
            "protocol": self.protocol,
            "environment": self.environment,
            "command_line": self.command_line,
            "request": asdict(self.request),
            "weights": _as_dicts(self.weights),
            "ablation": self.ablation,
            "datasets": _as_dicts(self.sets),
            "calibration": _as_dicts(self.calibration),
            "rows": report.rows(self.results),
            "summary": _as_dicts(self.summary),
            "differences": _as_dicts(self.differences),
            "speed": [one.flat() for one in self.speed],
            "failures": _as_dicts(self.failures),
            "hints": _as_dicts(self.hints),
            "images": report.image_rows(self.results),
        }


def _as_dicts(entries: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in entries]


def bench(
    request: BenchRequest,
    *,
    work: Path | None = None,
    fresh: bool = False,
    save_outputs: Path | None = None,
    command_line: str = "",
    on_progress: OnSweepProgress | None = None,
    on_notice: OnNotice = lambda _: None,
) -> Report:
    """Measure everything asked for. Finished images are kept in `work` and not computed again, unless `fresh`.

    Raises UsageError, DataError, ImageError, WeightsError, DeviceError, OutputError; a command that fails is not
    raised but listed under "failures", and the rest goes on.
    """
    with threads(request.threads):
        datasets = open_all(request)
        methods, pairs = methods_of(request, on_notice)
        perceptual = Perceptual(request.lpips if request.data else ())
        if perceptual.missing:
            on_notice(perceptual.missing)
        work = work or default_folder()
        require_folder(work, f"`work` {printable(work)}")
        store = Store(work, fresh=fresh)
        sweep = Sweep(datasets, methods, perceptual, store, save_outputs)
        if save_outputs is not None:
            require_pictures(save_outputs, sweep.places(), read_by(request))
        sweep.run(on_progress)
        timings = _speed(request, methods, datasets, on_progress) if request.speed else []
        found = _report(request, command_line, sweep, pairs, timings)
    for hint in found.hints:
        on_notice(hint.words)
    return found


def _speed(
    request: BenchRequest, methods: Sequence[Method], datasets: Sequence[Dataset], on_progress: OnSweepProgress | None
) -> list[Speed]:
    """On the first picture of the first set, or a drawn one."""
    sizes = request.speed_px
    sample = drawn_sample(max(sizes))
    if datasets:
        item = datasets[0].item(0)
        sample = Sample(datasets[0].name, item.name, item.low)
    return speed(methods, sample, scale=request.scale, sizes_px=sizes, threads=request.threads, on_progress=on_progress)


def read_by(request: BenchRequest) -> Read:
    """What a benchmark reads, which none of its results may replace."""
    references = [weights_name(reference)[1] for reference in (*request.weights, *request.ablation)]
    folders = (*request.data, *request.low, *(folder for _, folder in request.outputs))
    files = [path for reference in references for path in weights_files(reference)]
    files += [Path(request.degradation)] if request.degradation.endswith(".toml") else []
    return Read(tuple(Path(folder) for folder in folders), tuple(files))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch's threads for the block; None leaves them alone."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_all(request: BenchRequest) -> list[Dataset]:
    """The sets of a request; pictures are read later. Raises DataError and UsageError."""
    return open_datasets(
        [Path(folder) for folder in request.data],
        [Path(folder) for folder in request.low],
        protocol=choose_protocol(request.protocol),
        degradation=_degradation(request),
        scale=request.scale,
        square_px=request.square_px,
        limit=request.limit,
    )


def _degradation(request: BenchRequest) -> Degradation:
    return parse_degradation(request.degradation, request.degradation_seed)


def methods_of(request: BenchRequest, on_notice: OnNotice) -> tuple[list[Method], list[tuple[str, str]]]:
    """The competitors in the order of the tables, and the pairs whose difference is of interest."""
    references = [*request.weights, *request.ablation]
    if not references and not (request.data and (request.outputs or request.commands)):
        fitting = [entry.name for entry in automatic_weights() if entry.scale == request.scale]
        references = [*fitting, automatic_weights()[-1].name][:1]
    models = [_weights(request, *weights_name(reference), on_notice) for reference in references]
    others: list[Method] = [Outputs(name, Path(folder)) for name, folder in request.outputs]
    others += [Command(name, template, request.command_timeout_s) for name, template in request.commands]
    methods: list[Method] = [Interpolation("bicubic"), Interpolation("lanczos"), *others, *models]
    names = [method.name for method in methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two methods are called {twice!r}; name them apart with NAME=... ")
    return methods, _pairs(request, [m.name for m in models], [m.name for m in others])


def _pairs(request: BenchRequest, models: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [(models[-2], models[-1])] if request.ablation else []
    pairs += [(model, models[0]) for model in models[1:] if (models[0], model) not in pairs]
    return pairs + [(model, other) for model in models for other in ("bicubic", *others)]


def _weights(request: BenchRequest, name: str, reference: str, on_notice: OnNotice) -> WeightsMethod:
    return WeightsMethod(
        name,
        reference,
        steps=request.steps,
        stochasticity=request.stochasticity,
        seeds=range(request.first_seed, request.first_seed + request.seeds),
        device=request.device,
        precision=request.precision,
        tile_px=request.tile_px,
        fidelity=request.fidelity,
        match=request.match,
        on_notice=on_notice,
    )


def _report(
    request: BenchRequest,
    command_line: str,
    sweep: Sweep,
    pairs: Sequence[tuple[str, str]],
    timings: Sequence[Speed],
) -> Report:
    models = [method for method in sweep.methods if isinstance(method, WeightsMethod)]
    compute = models[0].compute if models else choose_compute(request.device, request.precision)
    words = choose_protocol(request.protocol).words(
        scale=request.scale, degradation=_degradation(request), paired=bool(request.low), square_px=request.square_px
    )
    return Report(
        request=request,
        command_line=command_line,
        protocol=words,
        environment={**environment(compute), "lpips": _lpips_words(sweep.perceptual)},
        weights=[model.facts() for model in models],
        ablation=ablation(request.ablation),
        sets=[report.set_facts(dataset, sweep.results) for dataset in sweep.datasets],
        calibration=calibration(sweep.datasets),
        summary=report.summary(sweep.results),
        differences=report.differences(sweep.results, pairs),
        speed=timings,
        failures=[
            *sweep.failures,
            *(Failure(f"{one.low_px} px", one.method, one.failure) for one in timings if one.failure),
        ],
        hints=report.hints_of(sweep.results),
        results=sweep.results,
        datasets=sweep.datasets,
    )


def _lpips_words(perceptual: Perceptual) -> str:
    return perceptual.missing or (", ".join(perceptual.nets) or "not asked for")
