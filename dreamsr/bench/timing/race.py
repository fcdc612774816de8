"""How fast, beside others: whole commands and single pictures over sizes, in turns, so that other work on the machine
hits all alike; ratios to the first weights, and to bare convolutions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from dreamsr.bench.methods import CPU, Command, Interpolation, Method, Produced, Variant, run_tool
from dreamsr.bench.sweep import OnSweepProgress, SweepProgress
from dreamsr.bench.timing.speed import Speed, Spread, spread
from dreamsr.bench.weights import WeightsMethod
from dreamsr.core import pixels as px
from dreamsr.core.pixels import Pixels
from dreamsr.errors import DataError
from dreamsr.measure.cost import Cost, measured
from dreamsr.measure.flops import BareStack, arithmetic_of

ROUNDS = 5
OWN_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Sample:
    """The picture that is enlarged, cut or mirrored to each of the sizes; where it is from."""

    dataset: str
    image: str
    low: Pixels


@dataclass(frozen=True)
class Contender:
    """One line of the table: `template` is its command line, `warm` enlarges in this process; None where it cannot."""

    method: Method
    steps: int | None = None
    template: str | None = None
    timeout_s: float = OWN_TIMEOUT_S
    warm: Callable[[Pixels], Produced] | None = None

    @property
    def device(self) -> torch.device:
        """Where it works in this process."""
        return self.method.compute.device if isinstance(self.method, WeightsMethod) else CPU


def contenders(methods: Sequence[Method], scale: int, threads: int | None) -> list[Contender]:
    """Weights at each number of steps first, then the others; folders of finished results have no speed."""
    own = [
        Contender(m, steps, m.command(steps, scale, threads), warm=partial(_enlarged, m, scale, steps))
        for m in methods
        if isinstance(m, WeightsMethod)
        for steps in m.steps
    ]
    tools = [Contender(m, template=m.template, timeout_s=m.timeout_s) for m in methods if isinstance(m, Command)]
    plain = [Contender(m, warm=partial(m.enlarged, scale=scale)) for m in methods if isinstance(m, Interpolation)]
    return [*own, *tools, *plain]


def _enlarged(method: WeightsMethod, scale: int, steps: int, low: Pixels) -> Produced:
    return method.enlarged(low, scale, Variant(steps, 0.0, 0))


@dataclass
class Runs:
    """What was measured of one contender at one size, a cost for each round."""

    cold: list[Cost] = field(default_factory=list)
    warm: list[Cost] = field(default_factory=list)
    bare_flops_per_second: list[float] = field(default_factory=list)
    evaluations: int | None = None
    failure: str | None = None


class Race:
    """All contenders by all sizes, ROUNDS times over."""

    def __init__(self, rivals: Sequence[Contender], sample: Sample, sizes_px: Sequence[int], scale: int) -> None:
        self.rivals, self.sample, self.scale = rivals, sample, scale
        self.lows = {side: tiled_to(sample.low, side) for side in sizes_px}
        self.runs = {(number, side): Runs() for side in sizes_px for number in range(len(rivals))}
        self.work = {
            number: arithmetic_of(one.method.upscaler.denoiser, one.steps or 1)
            for number, one in enumerate(rivals)
            if isinstance(one.method, WeightsMethod)
        }

    def run(self, on_progress: OnSweepProgress | None) -> list[Speed]:
        """Every contender in every round, after a first one that does not count. Commands warm up on the smallest."""
        total = (ROUNDS + 1) * len(self.runs)
        done = 0
        for turn in range(ROUNDS + 1):
            for (number, side), runs in self.runs.items():
                if on_progress is not None:
                    doing = f"speed {self.rivals[number].method.name}, {side} px"
                    on_progress(SweepProgress(done, total, doing, None))
                done += 1
                if runs.failure is None:
                    self._one(number, side, runs, counts=turn > 0)
        return [self._speed(number, side) for number, side in sorted(self.runs)]

    def _one(self, number: int, side: int, runs: Runs, *, counts: bool) -> None:
        rival, low = self.rivals[number], self.lows[side]
        kept = runs if counts else Runs()
        try:
            if rival.template is not None and (counts or side == min(self.lows)):
                name = rival.method.name
                _, cost = run_tool(rival.template, low, self.scale, timeout_s=rival.timeout_s, name=name)
                kept.cold.append(cost)
            if rival.warm is not None:
                with measured(rival.device) as cost:
                    kept.evaluations = rival.warm(low).evaluations
                kept.warm.append(cost)
            if isinstance(rival.method, WeightsMethod):
                stack = BareStack(self.work[number].width, rival.method.compute)
                kept.bare_flops_per_second.append(stack.flops_per_second())
        except DataError as error:
            runs.failure = str(error)

    def _speed(self, number: int, side: int) -> Speed:
        rival, runs = self.rivals[number], self.runs[number, side]
        head = (self.sample.dataset, self.sample.image, rival.method.name, rival.method.kind, rival.steps, side, ROUNDS)
        if runs.failure is not None:
            return Speed(*head, failure=runs.failure)
        reference = self.runs[0, side] if isinstance(self.rivals[0].method, WeightsMethod) else Runs()
        flops = self.work[number].flops_per_pixel * side**2 if number in self.work else 0.0
        shares = [flops / c.seconds / bare for c, bare in zip(runs.warm, runs.bare_flops_per_second, strict=False)]
        compute = rival.method.compute if isinstance(rival.method, WeightsMethod) else None
        return Speed(
            *head,
            cold_seconds=spread([cost.seconds for cost in runs.cold]),
            cold_ratio=_ratios(runs.cold, reference.cold),
            cold_cpu_seconds=_median([cost.cpu_seconds for cost in runs.cold]),
            cold_peak_memory_mb=_median([cost.peak_memory_mb for cost in runs.cold]),
            warm_seconds=spread([cost.seconds for cost in runs.warm]),
            warm_ratio=_ratios(runs.warm, reference.warm),
            warm_cpu_seconds=_median([cost.cpu_seconds for cost in runs.warm]),
            warm_peak_memory_mb=_median([cost.peak_memory_mb for cost in runs.warm]),
            convolution_share=spread(shares),
            evaluations=runs.evaluations,
            device=None if rival.warm is None else str(rival.device),
            dtype=None if compute is None else str(compute.dtype).removeprefix("torch."),
            threads=None if rival.warm is None else torch.get_num_threads(),
        )


def _ratios(own: Sequence[Cost], reference: Sequence[Cost]) -> Spread | None:
    """Round by round; None where one of them has none."""
    return spread([a.seconds / b.seconds for a, b in zip(own, reference, strict=False)])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def speed(
    methods: Sequence[Method],
    sample: Sample,
    *,
    scale: int,
    sizes_px: Sequence[int],
    threads: int | None = None,
    on_progress: OnSweepProgress | None = None,
) -> list[Speed]:
    """One entry per method, number of steps and size, smallest first."""
    rivals = contenders(methods, scale, threads)
    try:
        return Race(rivals, sample, sorted(sizes_px), scale).run(on_progress)
    finally:
        for method in methods:
            method.release()


def drawn_sample(side_px: int) -> Sample:
    """A picture for those who give none: noise of every size, each octave as strong as the next, as photos have it."""
    random = torch.Generator().manual_seed(0)
    image = torch.zeros(1, 3, side_px, side_px)
    for octave in range(2, max(3, side_px.bit_length())):
        coarse = torch.randn(1, 3, 1 << octave, 1 << octave, generator=random)
        image += torch.nn.functional.interpolate(coarse, size=(side_px, side_px), mode="bicubic")
    return Sample("drawn", f"{side_px} px", px.from_tensor(image[0] / 4))


def tiled_to(low: Pixels, side_px: int) -> Pixels:
    """[h,w,3] -> [side,side,3]: cut, or mirrored on to the right and downward where it is smaller."""
    down, right = (max(0, side_px - n) for n in low.shape[:2])
    return np.ascontiguousarray(np.pad(low, ((0, down), (0, right), (0, 0)), mode="symmetric")[:side_px, :side_px])
