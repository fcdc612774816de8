"""Measure weights, interpolation and other tools on the same pictures, by rules that are named with every figure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dreamsr.bench import report
from dreamsr.bench.calibration import calibration, weights_facts
from dreamsr.bench.dataset import Dataset, open_datasets
from dreamsr.bench.methods import Command, Interpolation, Method, Outputs
from dreamsr.bench.places import Read, require_pictures, weights_files
from dreamsr.bench.protocol import choose_protocol
from dreamsr.bench.store import Store, default_folder
from dreamsr.bench.sweep import OnSweepProgress, Result, Sweep
from dreamsr.bench.timing.race import Sample, drawn_sample, speed
from dreamsr.bench.timing.speed import Speed
from dreamsr.bench.weights import WeightsMethod, weights_name
from dreamsr.core.device import choose_compute
from dreamsr.data.shrinking import Degradation, parse_degradation
from dreamsr.errors import ConfigError, UsageError, printable
from dreamsr.measure.lpips import Perceptual
from dreamsr.measure.machine import environment
from dreamsr.outputs import require_folder
from dreamsr.upscaling.upscaler import DEFAULT_WEIGHTS

FORMAT = "dreamsr-bench-1"
FEWEST_SEEDS, MOST_SEEDS = 1, 100
OnNotice = Callable[[str], None]


@dataclass(frozen=True)
class BenchRequest:
    """One benchmark in full; JSON values only, so that a report can be run again from itself.

    weights: NAME=REF or REF. steps: empty for what each of the weights recommends. seeds: how many, from
    `first_seed` on. ablation: two training runs to compare in pairs. outputs, commands: (name, folder) and
    (name, command line) of other tools. tile_px: fixed, since tiling chosen by free memory would change figures.
    """

    data: tuple[str, ...]
    low: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    ablation: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    seeds: int = 1
    first_seed: int = 0
    stochasticity: tuple[float, ...] = (0.0,)
    fidelity: float = 0.0
    match: bool = True
    outputs: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    command_timeout_s: float = 3600.0
    protocol: str = "standard"
    degradation: str = "bicubic"
    degradation_seed: int = 0
    scale: int = 4
    square_px: int = 512
    limit: int | None = None
    lpips: tuple[str, ...] = ("alex",)
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    threads: int | None = None
    tile_px: int = 512
    speed: bool = False
    speed_px: tuple[int, ...] = (128, 256, 512)

    def __post_init__(self) -> None:
        _require(bool(self.data) or self.speed, "DATA", "nothing", "one or more folders with large pictures")
        _require(all(16 <= n <= 8192 for n in self.speed_px), "`speed_px`", self.speed_px, "16..8192 each")
        _require(bool(self.speed_px), "`speed_px`", "empty", "one or more numbers of pixels")
        _require(2 <= self.scale <= 16, "`scale`", self.scale, "2..16")
        _require(FEWEST_SEEDS <= self.seeds <= MOST_SEEDS, "`seeds`", self.seeds, f"{FEWEST_SEEDS}..{MOST_SEEDS}")
        _require(self.first_seed >= 0, "`first_seed`", self.first_seed, "0 or more")
        _require(all(s >= 1 for s in self.steps), "`steps`", self.steps, "1 or more each")
        _require(len(set(self.steps)) == len(self.steps), "`steps`", self.steps, "different from each other")
        _require(bool(self.stochasticity), "`stochasticity`", "empty", "one or more numbers in 0..1")
        _require(all(0 <= s <= 1 for s in self.stochasticity), "`stochasticity`", self.stochasticity, "in 0..1 each")
        _require(len(self.ablation) in (0, 2), "`ablation`", self.ablation, "two training runs")
        _require(self.limit is None or self.limit >= 1, "`limit`", self.limit, "1 or more")
        _require(self.threads is None or self.threads >= 1, "`threads`", self.threads, "1 or more")
        _require(self.command_timeout_s > 0, "`command_timeout_s`", self.command_timeout_s, "above 0")
        plain_y = self.protocol != "y-channel" or (not self.low and self.degradation == "bicubic")
        _require(plain_y, "`protocol`", "y-channel", "without `low` and `degradation`: it shrinks luma by itself")


@dataclass(frozen=True)
class Report:
    """`data` is what the JSON holds; `results` are the single images, with their crops, for CSV and pictures.

    `summary`, `differences` and `speed` are in `data`, too.
    """

    data: Mapping[str, Any]
    results: Sequence[Result]
    datasets: Sequence[Dataset]
    summary: Sequence[report.Summary]
    differences: Sequence[report.Compared]
    speed: Sequence[Speed]

    @property
    def failed(self) -> bool:
        """Whether some method could not finish."""
        return bool(self.data["failures"])


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
        perceptual = Perceptual(request.lpips)
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
    for hint in found.data["hints"]:
        on_notice(f"{hint['method']} on {hint['dataset']}: {hint['text']} ({hint['images']} images)")
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
        references = [DEFAULT_WEIGHTS]
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
    summary, differences = report.summary(sweep.results), report.differences(sweep.results, pairs)
    data = {
        "format": FORMAT,
        "protocol": words,
        "environment": {**environment(compute), "lpips": _lpips_words(sweep.perceptual)},
        "command_line": command_line,
        "request": dataclasses.asdict(request),
        "weights": [weights_facts(model) for model in models],
        "ablation": ablation(request.ablation),
        "datasets": [_dataset_facts(dataset, sweep.results) for dataset in sweep.datasets],
        "calibration": calibration(sweep.datasets),
        "rows": report.rows(sweep.results),
        "summary": [dataclasses.asdict(entry) for entry in summary],
        "differences": [dataclasses.asdict(entry) for entry in differences],
        "speed": [one.flat() for one in timings],
        "failures": [dataclasses.asdict(failure) for failure in sweep.failures],
        "hints": _hints(sweep.results),
        "images": report.image_rows(sweep.results),
    }
    return Report(data, sweep.results, sweep.datasets, summary, differences, timings)


def _lpips_words(perceptual: Perceptual) -> str:
    return perceptual.missing or (", ".join(perceptual.nets) or "not asked for")


def _dataset_facts(dataset: Dataset, results: Sequence[Result]) -> dict[str, Any]:
    """Its fingerprint covers truth and small images as they were measured."""
    own = {r.image: r for r in results if r.dataset == dataset.name}
    digest = hashlib.sha256("".join(own[name].fingerprint for name in sorted(own)).encode())
    return {
        "name": dataset.name,
        "folder": str(dataset.folder.resolve()),
        "images": len(dataset),
        "megapixels": sum(r.megapixels for r in own.values()),
        "sha256": digest.hexdigest(),
    }


def _hints(results: Sequence[Result]) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str], int] = {}
    for result in results:
        for text in result.record.hints:
            key = (result.dataset, result.method, text)
            counts[key] = counts.get(key, 0) + 1
    return [{"dataset": d, "method": m, "text": t, "images": n} for (d, m, t), n in counts.items()]


def ablation(runs: Sequence[str]) -> dict[str, Any] | None:
    """Two training runs and every setting in which their `config.json` differ; None where none were given."""
    if not runs:
        return None
    settings = [_run_settings(Path(weights_name(run)[1])) for run in runs]
    keys = sorted(set(settings[0]) | set(settings[1]))
    differing = {key: [s.get(key) for s in settings] for key in keys if settings[0].get(key) != settings[1].get(key)}
    return {
        "runs": list(runs),
        "differences": differing if all(settings) else "unknown: no config.json beside the weights",
    }


def _run_settings(run: Path) -> dict[str, Any]:
    """Dotted names -> values of a run's training configuration; empty where there is none."""
    path = (run if run.is_dir() else run.parent) / "config.json"
    if not path.exists():
        return {}
    try:
        return _flat(json.loads(path.read_text())["train"], "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a training run's configuration ({error})") from None


def _flat(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner})
    return flat


def _require(holds: bool, name: str, given: object, possible: str) -> None:
    if not holds:
        shown = ",".join(str(part) for part in given) if isinstance(given, tuple) else given
        raise UsageError(f"{name} is {shown}, but it must be {possible}")
