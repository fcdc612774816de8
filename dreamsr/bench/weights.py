"""Weights as a competitor in a benchmark: at several numbers of steps, stochasticities and seeds."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Kind, Produced, Variant, sha256_of_file
from dreamsr.core.device import choose_compute
from dreamsr.core.pixels import Pixels
from dreamsr.errors import UsageError
from dreamsr.measure.cost import measured
from dreamsr.measure.machine import code_fingerprint
from dreamsr.upscaling.upscaler import Progress, Settings, Upscaler
from dreamsr.weights.file import FILE_NAME

WARM_UP_PX = 32


@dataclass(frozen=True)
class WeightsFacts:
    """What a report says of one weights file."""

    name: str
    file: str
    sha256: str
    size_bytes: int
    steps: Sequence[int]
    device: str
    dtype: str


class WeightsMethod:
    """One weights file at several numbers of steps, stochasticities and seeds; loaded when first run."""

    kind: Kind = "weights"

    def __init__(
        self,
        name: str,
        reference: str,
        *,
        steps: Sequence[int],
        stochasticity: Sequence[float],
        seeds: Sequence[int],
        device: str,
        precision: Literal["auto", "bf16", "fp16", "fp32"],
        tile_px: int,
        fidelity: float,
        match: bool,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        from dreamsr.weights.resolve import resolve_weights

        self.name = name
        self.path = resolve_weights(reference, on_notice=on_notice)
        self.sha256 = sha256_of_file(self.path)
        self.compute = choose_compute(device, precision)
        self._device, self._precision = device, precision
        self._steps, self._stochasticity, self._seeds = tuple(steps), tuple(stochasticity), tuple(seeds)
        self._settings = {"tile_px": tile_px, "fidelity": fidelity, "match": match}
        self._loaded: Upscaler | None = None

    @property
    def upscaler(self) -> Upscaler:
        """The loaded weights, warmed up."""
        if self._loaded is None:
            self._loaded = Upscaler(self.path, self._device, precision=self._precision)
        return self._loaded

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """As asked for, or what the weights recommend. Raises UsageError for more steps than the process has."""
        steps, most = self._steps or (self.upscaler.default_steps,), self.upscaler.denoiser.process.timesteps
        if max(steps) > most:
            raise UsageError(f"`steps` is {max(steps)}, but {self.name} can take 1..{most}")
        return steps

    def variants(self) -> Sequence[Variant]:
        return [
            Variant(steps, stochasticity, seed)
            for steps in self.steps
            for stochasticity in self._stochasticity
            for seed in self._seeds
        ]

    def settings(self, variant: Variant) -> Settings:
        """How a variant enlarges."""
        return Settings(
            steps=variant.steps,
            seed=variant.seed or 0,
            stochasticity=variant.stochasticity or 0.0,
            tile_px=int(self._settings["tile_px"]),
            fidelity=float(self._settings["fidelity"]),
            match=bool(self._settings["match"]),
        )

    def facts(self) -> WeightsFacts:
        """What they are, and what they were run by."""
        dtype = str(self.compute.dtype).removeprefix("torch.")
        size = self.path.stat().st_size
        return WeightsFacts(
            self.name, str(self.path), self.sha256, size, list(self.steps), str(self.compute.device), dtype
        )

    def command(self, steps: int, scale: int, threads: int | None) -> str:
        """The command line that enlarges in the same way, with {input} and {output}."""
        settings = self.settings(Variant(steps, 0.0, 0))
        options = {"scale": scale, "weights": self.path, "steps": steps, "device": self.compute.device,
                   "precision": self._precision, "tile": settings.tile_px, "fidelity": settings.fidelity}  # fmt: skip
        options |= {"threads": threads} if threads is not None else {}
        flags = ["quiet", "match" if settings.match else "no-match"]
        words = [sys.executable, "-m", "dreamsr", "upscale", "{input}", "-o", "{output}"]
        return shlex.join([*words, *(f"--{n}={value}" for n, value in options.items()), *(f"--{n}" for n in flags)])

    def identity(self, dataset: Dataset, number: int, variant: Variant) -> Mapping[str, Any]:  # noqa: ARG002
        return {
            "weights": self.sha256,
            "variant": [variant.steps, variant.stochasticity, variant.seed],
            "settings": self._settings,
            "device": str(self.compute.device),
            "machine": [platform.machine(), torch.get_num_threads()],
            "dtype": str(self.compute.dtype),
            "torch": torch.__version__,
            "code": code_fingerprint(),
        }

    def run(self, dataset: Dataset, number: int, variant: Variant) -> Produced:
        return self.enlarged(dataset.item(number).low, dataset.scale, variant)

    def enlarged(self, low: Pixels, scale: int, variant: Variant) -> Produced:
        """[h,w,3] uint8 enlarged, with its cost."""
        height, width = low.shape[0] * scale, low.shape[1] * scale
        evaluations = 0

        def count(progress: Progress) -> None:
            nonlocal evaluations
            evaluations = progress.done

        self.warm_up(low, scale)
        with measured(self.compute.device) as cost:
            pixels = self.upscaler.enlarge(low, height, width, self.settings(variant), on_progress=count)
        return Produced(pixels, None, cost.seconds, cost.peak_memory_mb, evaluations)

    def warm_up(self, low: Pixels, scale: int) -> None:
        """Load, and once enlarge a corner in one step, so that no figure holds the first call's extra seconds."""
        if self._loaded is not None:
            return
        corner = low[:WARM_UP_PX, :WARM_UP_PX]
        self.upscaler.enlarge(corner, corner.shape[0] * scale, corner.shape[1] * scale, Settings(steps=1))

    def release(self) -> None:
        self._loaded = None


def weights_name(reference: str) -> tuple[str, str]:
    """`NAME=REF`, or REF alone, which names itself: (name, reference)."""
    name, equals, rest = reference.partition("=")
    if equals and name and rest:
        return name, rest
    path = Path(reference)
    if path.name == FILE_NAME:
        return path.resolve().parent.name, reference
    return (path.stem if path.suffix == ".safetensors" else path.name), reference
