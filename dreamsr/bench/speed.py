"""How fast: cold and warm, at batch 1 and at the best batch, on one picture of a stated size."""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Command, Interpolation, Method, Produced, Variant, filled
from dreamsr.bench.sweep import OnSweepProgress, SweepProgress
from dreamsr.bench.weights import WeightsMethod
from dreamsr.core import pixels as px
from dreamsr.core.pixels import Pixels
from dreamsr.core.samplers import restore
from dreamsr.errors import DataError
from dreamsr.measure.cost import Cost, measured, run_command
from dreamsr.measure.memory import is_out_of_memory
from dreamsr.pictures.picture import Picture
from dreamsr.pictures.write import write_picture
from dreamsr.processes import users_environment

LOW_PX = 256
REPEATS = 5
BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_LOW_PX = 64


@dataclass(frozen=True)
class Timings:
    """Seconds of `REPEATS` runs on one picture of `megapixels`, each with its peak memory."""

    seconds: Sequence[float]
    peaks: Sequence[float]
    megapixels: float

    def facts(self) -> dict[str, Any]:
        p50, p95 = (float(np.quantile(self.seconds, q)) for q in (0.5, 0.95))
        return {
            "low_px": LOW_PX,
            "repeats": len(self.seconds),
            "warm_p50_seconds": p50,
            "warm_p95_seconds": p95,
            "warm_seconds_per_megapixel": p50 / self.megapixels,
            "warm_p95_seconds_per_megapixel": p95 / self.megapixels,
            "peak_memory_mb": max(self.peaks) if self.peaks else None,
        }


def speed(
    methods: Sequence[Method], dataset: Dataset, *, on_progress: OnSweepProgress | None = None
) -> list[dict[str, Any]]:
    """One entry per method and number of steps. Folders of finished results have no speed and are left out.

    The picture is 256x256 px, repeated from the first of the set if that is smaller; megapixels are its own.
    """
    low = tiled_to(dataset.item(0).low, LOW_PX)
    todo = [(m, v) for m in methods for v in _variants(m)]
    found = []
    for number, (method, variant) in enumerate(todo):
        if on_progress is not None:
            on_progress(SweepProgress(number, len(todo), f"speed {method.name} {variant.label}", None))
        entry = {"method": method.name, "kind": method.kind, "steps": variant.steps}
        try:
            found.append({**entry, **_measure(method, variant, low, dataset.scale)})
        except DataError as error:
            found.append({**entry, "failure": str(error)})
        if number + 1 == len(todo) or todo[number + 1][0] is not method:
            method.release()
    return found


def _variants(method: Method) -> Sequence[Variant]:
    if isinstance(method, WeightsMethod):
        return [Variant(steps, 0.0, 0) for steps in method.steps]
    return [Variant()] if isinstance(method, Command | Interpolation) else []


def _measure(method: Method, variant: Variant, low: Pixels, scale: int) -> dict[str, Any]:
    if isinstance(method, WeightsMethod):
        return _weights_speed(method, variant, low, scale)
    if isinstance(method, Command):
        return _command_speed(method, low, scale)
    assert isinstance(method, Interpolation)
    return repeated(low, lambda: method.enlarged(low, scale)).facts()


def repeated(low: Pixels, run: Callable[[], Produced]) -> Timings:
    """`run` once without counting, then REPEATS times."""
    run()
    results = [run() for _ in range(REPEATS)]
    return Timings(
        [r.seconds for r in results if r.seconds is not None],
        [r.peak_memory_mb for r in results if r.peak_memory_mb is not None],
        megapixels_of(low),
    )


def _weights_speed(method: WeightsMethod, variant: Variant, low: Pixels, scale: int) -> dict[str, Any]:
    cold = _cold(method, variant, low, scale)
    method.warm_up(low, scale)
    last: list[Produced] = []

    def run() -> Produced:
        last[:] = [method.enlarged(low, scale, variant)]
        return last[0]

    facts = repeated(low, run).facts()
    return {
        **facts,
        "cold_seconds": cold.seconds,
        "cold_seconds_per_megapixel": cold.seconds / megapixels_of(low),
        "evaluations": last[0].evaluations,
        "threads": torch.get_num_threads(),
        "dtype": str(method.compute.dtype).removeprefix("torch."),
        "device": str(method.compute.device),
        **best_batch(method, variant.steps or 1, low),
    }


def _cold(method: WeightsMethod, variant: Variant, low: Pixels, scale: int) -> Cost:
    """A fresh process, as a user starts it: imports, loading, one picture read and written."""
    program, weights = shlex.quote(sys.executable), shlex.quote(str(method.path))
    line = (
        f"{program} -m dreamsr upscale {{input}} -o {{output}} -s {scale} -w {weights} "
        f"--steps {variant.steps} --device {method.compute.device}"
    )
    return _from_file(line, low, scale, times=1, timeout_s=3600)[0]


def _command_speed(method: Command, low: Pixels, scale: int) -> dict[str, Any]:
    """A command starts anew every time: its first run is cold, the later ones have the system's caches warm."""
    costs = _from_file(method.template, low, scale, times=3, timeout_s=method.timeout_s)
    peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
    warm = Timings([cost.seconds for cost in costs[1:]], peaks, megapixels_of(low))
    cold = costs[0].seconds
    return {**warm.facts(), "cold_seconds": cold, "cold_seconds_per_megapixel": cold / megapixels_of(low)}


def _from_file(template: str, low: Pixels, scale: int, *, times: int, timeout_s: float) -> list[Cost]:
    """What a command line with {input}, {output} and {scale} costs on one picture. Raises DataError if it fails."""
    with tempfile.TemporaryDirectory(prefix="dreamsr-bench-") as folder:
        source, result = Path(folder, "low.png"), Path(folder, "large.png")
        write_picture(source, Picture(low))
        words = filled(template, {"{input}": str(source), "{output}": str(result), "{scale}": str(scale)})
        environment = users_environment()
        return [run_command(words, timeout_s=timeout_s, environment=environment) for _ in range(times)]


def best_batch(method: WeightsMethod, steps: int, low: Pixels) -> dict[str, Any]:
    """Seconds per megapixel of BATCH_LOW_PX square pieces by batch size, doubled as long as it pays and fits."""
    piece = px.to_tensor(np.ascontiguousarray(low[:BATCH_LOW_PX, :BATCH_LOW_PX]))
    rates: dict[int, float] = {}
    for batch in BATCHES:
        try:
            rates[batch] = _batch_seconds(method, steps, piece, batch) / (batch * (BATCH_LOW_PX**2 / 1e6))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if len(rates) > 1 and rates[batch] > 1.05 * min(rates.values()):
            break
    best = min(rates, key=lambda batch: rates[batch])
    return {
        "batch_low_px": BATCH_LOW_PX,
        "batch_1_seconds_per_megapixel": rates[1],
        "best_batch": best,
        "best_batch_seconds_per_megapixel": rates[best],
    }


def _batch_seconds(method: WeightsMethod, steps: int, piece: torch.Tensor, batch: int) -> float:
    """The median of three runs of the bare net and sampler."""
    denoiser, device = method.upscaler.denoiser, method.compute.device
    small = piece.expand(batch, -1, -1, -1).to(device, memory_format=torch.channels_last)
    shape = (batch, 3, piece.shape[1] * denoiser.scale, piece.shape[2] * denoiser.scale)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    for _ in range(3):
        with measured(device) as cost, torch.inference_mode():
            restore(denoiser, small, steps=steps, noise=lambda _: noise)
        seconds.append(cost.seconds)
    return statistics.median(seconds)


def tiled_to(low: Pixels, side_px: int) -> Pixels:
    """[h,w,3] -> [side,side,3]: cut, or mirrored on to the right and downward where it is smaller."""
    down, right = (max(0, side_px - n) for n in low.shape[:2])
    return np.ascontiguousarray(np.pad(low, ((0, down), (0, right), (0, 0)), mode="symmetric")[:side_px, :side_px])


def megapixels_of(low: Pixels) -> float:
    height, width = int(low.shape[0]), int(low.shape[1])
    return height * width / 1e6


def speed_columns(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of one entry that a table shows, in its order."""
    names = (
        "cold_seconds_per_megapixel", "warm_seconds_per_megapixel", "warm_p95_seconds_per_megapixel", "evaluations",
        "peak_memory_mb", "batch_1_seconds_per_megapixel", "best_batch", "best_batch_seconds_per_megapixel",
    )  # fmt: skip
    return {name: entry.get(name) for name in names}
