"""One net over one image of any size, tile by tile, with what can go wrong: memory runs out, values are not finite."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dreamsr.core import pixels as px
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.noise import NoiseField
from dreamsr.core.pixels import Pixels
from dreamsr.core.samplers import sample
from dreamsr.core.sizes import Pass
from dreamsr.core.tiles import Window, blend, windows
from dreamsr.errors import DeviceError
from dreamsr.tasks.memory import is_out_of_memory
from dreamsr.tasks.settings import SMALLEST_TILE_PX, OnProgress, Progress, Settings


class Counter:
    """Counts net evaluations over all passes and tiles of one picture and tells of each."""

    def __init__(self, passes: list[Pass], steps: int, tile: int, on_progress: OnProgress | None) -> None:
        tiles = sum(len(windows(one.height, tile)) * len(windows(one.width, tile)) for one in passes)
        self.total = tiles * (steps + 1)
        self.done = 0
        self.on_progress = on_progress

    def tick(self) -> None:
        """One more evaluation; the total grows where smaller tiles need more than was foreseen."""
        self.done += 1
        self.total = max(self.total, self.done)
        if self.on_progress is not None:
            self.on_progress(Progress(self.done, self.total))


@dataclass(frozen=True)
class TiledRun:
    """One pass: `denoiser` over a whole image in tiles of at most `tile` px, `steps` steps each."""

    denoiser: Denoiser
    settings: Settings
    seed: int
    steps: int
    tile: int
    counter: Counter

    def __call__(self, image: Pixels) -> Pixels:
        """[h,w,C] -> [s*h,s*w,C], C 1 or 3; where memory runs out, again with half the tile. Raises DeviceError."""
        run = replace(self, tile=min(self.tile, max(SMALLEST_TILE_PX, *image.shape[:2])))
        while True:
            try:
                return run._over(image)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if run.tile // 2 < SMALLEST_TILE_PX:
                raise DeviceError(
                    f"out of memory on {self.denoiser.compute.device} even with tiles of {run.tile} px; "
                    "close other programs or choose another --device"
                )
            run = replace(run, tile=run.tile // 2)
            if self.denoiser.compute.device.type == "cuda":
                torch.cuda.empty_cache()

    def _over(self, image: Pixels) -> Pixels:
        height, width, channels = image.shape
        scale = self.denoiser.scale
        result = np.empty((height * scale, width * scale, channels), dtype=image.dtype)
        field = NoiseField(self.seed)

        def compute(rows: Window, columns: Window) -> Tensor:
            window = px.to_tensor(image[rows.start : rows.stop, columns.start : columns.stop])
            return self._finite_tile(window.expand(3, -1, -1), rows, columns, field)

        for strip in blend(height, width, scale=scale, tile=self.tile, compute=compute):
            # A grey picture has no hue to weigh: the mean of the channels, not their luminance.
            pixels = strip.pixels if channels == 3 else strip.pixels.mean(dim=0, keepdim=True)
            result[strip.top : strip.top + pixels.shape[1]] = px.from_tensor(pixels, image.dtype.type)
        return result

    def _finite_tile(self, low: Tensor, rows: Window, columns: Window, field: NoiseField) -> Tensor:
        """What is not finite is computed again in float32, and never returned."""
        try:
            return self._tile(self.denoiser, low, rows, columns, field)
        except NotFiniteError:
            pass
        precise = with_float32(self.denoiser)
        try:
            return self._tile(precise, low, rows, columns, field)
        except NotFiniteError:
            raise DeviceError(
                "the net gave values that are not numbers, also in float32; these weights are unusable: choose others"
            ) from None

    def _tile(self, denoiser: Denoiser, low: Tensor, rows: Window, columns: Window, field: NoiseField) -> Tensor:
        """One tile: [3,h,w] -> [3,s*h,s*w] float32 on the CPU. Raises NotFiniteError."""
        scale, device = denoiser.scale, denoiser.compute.device
        place = (scale * rows.start, scale * columns.start, scale * rows.size, scale * columns.size)
        first: list[Tensor] = []

        def on_step(number: int, x0_hat: Tensor) -> None:
            if number == 1 and self.settings.fidelity > 0:
                first.append(x0_hat)
            self.counter.tick()

        with torch.inference_mode():
            small = low[None].to(device, memory_format=torch.channels_last)  # [1,3,h,w]
            watched = Watched(denoiser)
            condition = watched.condition(small)
            self.counter.tick()
            image = sample(
                watched,
                condition,
                steps=self.steps,
                noise=lambda step: field.window(step, *place)[None].to(device),
                stochasticity=self.settings.stochasticity,
                on_step=on_step,
            )
            if first:
                image = torch.lerp(image, first[0], self.settings.fidelity)
            if self.settings.match:
                image = px.match_low_frequencies(image, small, scale=scale)
            return image[0].float().cpu()  # [3,s*h,s*w]


class NotFiniteError(ArithmeticError):
    """A net gave infinity or not-a-number."""


class Watched(Denoiser):
    """The same denoiser, which raises NotFiniteError where its net gives no numbers.

    Looking at finished images would be too late: clipping turns infinity into an innocent white.
    """

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.net, inner.process, inner.prediction, scale=inner.scale, compute=inner.compute)

    def condition(self, low: Tensor) -> Condition:
        condition = super().condition(low)
        _require_finite(condition.y)
        return condition

    def raw(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        out = super().raw(x_t, condition, t)
        _require_finite(out)
        return out


def _require_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError


def with_float32(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, computing in float32."""
    compute = choose_compute(str(denoiser.compute.device), "fp32")
    return Denoiser(denoiser.net, denoiser.process, denoiser.prediction, scale=denoiser.scale, compute=compute)
