"""One net over one image of any size, tile by tile, with what can go wrong: memory runs out, values are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from dreamsr.core import pixels as px
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.noise import NoiseField
from dreamsr.core.pixels import Pixels
from dreamsr.core.samplers import restore
from dreamsr.core.tiles import Tile, Window, align_px, blend, smallest_tile_px, tiles
from dreamsr.errors import DeviceError
from dreamsr.measure.memory import is_out_of_memory
from dreamsr.upscaling.flat import evenness, flattened, is_flat
from dreamsr.upscaling.settings import OnProgress, Progress, Settings
from dreamsr.upscaling.sizes import Pass, whole_px


class Counter:
    """Counts net evaluations over all passes and tiles of one picture, `total` of them foreseen, and tells of each."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self.total = total
        self.done = 0
        self.on_progress = on_progress

    def tick(self) -> None:
        """One more evaluation; the total grows where smaller tiles need more than was foreseen."""
        self.done += 1
        self.total = max(self.total, self.done)
        if self.on_progress is not None:
            self.on_progress(Progress(self.done, self.total))


def evaluations(one: Pass, steps: int, tile: int) -> int:
    """How often a pass of so many steps asks its net, in tiles of at most `tile` px."""
    tile = max(tile, smallest_tile_px(align_px(one.scale)))
    height, width = (whole_px(size, one.scale) for size in (one.height, one.width))
    return sum(steps + 1 for _ in tiles(height, width, scale=one.scale, tile=tile))


@dataclass(frozen=True)
class TiledRun:
    """One pass: `denoiser` over a whole image by a factor of `scale`, `steps` steps for each tile of at most `tile` px.

    A factor that needs larger tiles to overlap on whole pixels gets them. `on_evaluation` is called after each of the
    net's: `steps` for each tile and one for what is known before the first.
    """

    denoiser: Denoiser
    scale: Fraction | int
    settings: Settings
    seed: int
    steps: int
    tile: int
    on_evaluation: Callable[[], None] = lambda: None

    def __call__(self, image: Pixels) -> Pixels:
        """[h,w,C] -> [ceil(s*h),ceil(s*w),C], C 1 or 3. Raises DeviceError."""
        return np.concatenate(list(self.strips(image)))

    def strips(self, image: Pixels) -> Iterator[Pixels]:
        """The same, row of tiles by row of tiles, downward; goes on with half the tile where memory runs out."""
        padded, smallest = _padded(image, self.scale), smallest_tile_px(align_px(self.scale))
        run = replace(self, tile=min(max(self.tile, smallest), max(smallest, *padded.shape[:2])))
        tall, wide = (math.ceil(size * self.scale) for size in image.shape[:2])
        done = 0  # rows that have left
        while True:
            try:
                for top, strip in run._over(padded, tall, wide):
                    if top + len(strip) > done:
                        yield strip[max(0, done - top) :]
                        done = top + len(strip)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if run.tile // 2 < smallest:
                raise DeviceError(
                    f"out of memory on {self.denoiser.compute.device} even with tiles of {run.tile} px; "
                    "close other programs or choose another `device`"
                )
            run = replace(run, tile=run.tile // 2)
            if self.denoiser.compute.device.type == "cuda":
                torch.cuda.empty_cache()

    def _over(self, image: Pixels, tall: int, wide: int) -> Iterator[tuple[int, Pixels]]:
        """An image [h,w,C] that enlarges to whole pixels -> the first tall x wide px of the large one, in strips.

        Each comes with the row that it begins at.
        """
        height, width, channels = image.shape
        field = NoiseField(self.seed)
        places = tiles(height, width, scale=self.scale, tile=self.tile)
        results = ((tile, self._result(tile, image, field)) for tile in places)
        parts: list[Pixels] = []
        for patch in blend(results, height, width, scale=self.scale):
            inside = patch.pixels[:, : tall - patch.top, : wide - patch.left]
            # A grey picture has no hue to weigh: the mean of the channels, not their luminance.
            pixels = inside if channels == 3 else inside.mean(dim=0, keepdim=True)
            parts.append(px.from_tensor(pixels, image.dtype.type))
            if patch.left + patch.pixels.shape[2] == self.scale * width:
                yield patch.top, np.concatenate(parts, axis=1)
                parts = []

    def _result(self, tile: Tile, image: Pixels, field: NoiseField) -> Tensor:
        """What becomes of one tile, [3,s*h,s*w]; where it is flat as it is, without the net."""
        rows, columns = (slice(window.start, window.stop) for window in (tile.rows, tile.columns))
        low = px.to_tensor(image[rows, columns]).expand(3, -1, -1)  # [3,h,w]
        even = evenness(image, rows, columns)
        if is_flat(even):
            for _ in range(self.steps + 1):
                self.on_evaluation()
            return low[:, :1, :1].expand(3, *(window.enlarged(self.scale).size for window in (tile.rows, tile.columns)))
        return flattened(self._finite_tile(low, tile.rows, tile.columns, field), low, even)

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
        scale, device = self.scale, denoiser.compute.device
        tall, wide = rows.enlarged(scale), columns.enlarged(scale)
        place = (tall.start, wide.start, tall.size, wide.size)
        with torch.inference_mode():
            image = restore(
                Watched(denoiser),
                low[None].to(device, memory_format=torch.channels_last),  # [1,3,h,w]
                steps=self.steps,
                noise=lambda step: field.window(step, *place)[None].to(device),
                scale=Fraction(scale),
                stochasticity=self.settings.stochasticity,
                fidelity=self.settings.fidelity,
                match=self.settings.match,
                on_step=lambda _number, _estimate: self.on_evaluation(),
            )
            return image[0].float().cpu()  # [3,s*h,s*w]


def _padded(image: Pixels, scale: Fraction | int) -> Pixels:
    """[h,w,C] with the lower and right edge repeated until both sides enlarge to whole pixels."""
    more = [(0, whole_px(size, scale) - size) for size in image.shape[:2]]
    return np.pad(image, (*more, (0, 0)), mode="edge") if any(after for _, after in more) else image


class NotFiniteError(ArithmeticError):
    """A net gave infinity or not-a-number."""


class Watched(Denoiser):
    """The same denoiser, which raises NotFiniteError where its net gives no numbers.

    Looking at finished images would be too late: clipping turns infinity into an innocent white.
    """

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(
            inner.net,
            inner.process,
            inner.prediction,
            scale=inner.scale,
            parametrisation=inner.parametrisation,
            compute=inner.compute,
            traits=inner.traits,
        )

    def condition(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        condition = super().condition(low, scale)
        _require_finite(condition.y)
        return condition

    def output(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        out = super().output(x_t, condition, t)
        _require_finite(out)
        return out


def _require_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError


def with_float32(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, computing in float32."""
    compute = choose_compute(str(denoiser.compute.device), "fp32")
    return Denoiser(
        denoiser.net,
        denoiser.process,
        denoiser.prediction,
        scale=denoiser.scale,
        parametrisation=denoiser.parametrisation,
        compute=compute,
        traits=denoiser.traits,
    )
