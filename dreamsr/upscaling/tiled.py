"""One net over one image of any size, tile by tile, with what can go wrong: memory runs out, values are not finite."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from dreamsr.core import pixels as px
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.device import choose_compute
from dreamsr.core.noise import NoiseField
from dreamsr.core.pixels import Pixels
from dreamsr.core.samplers import NoiseSource, restore
from dreamsr.core.tiles import Tile, align_px, blend, smallest_tile_px, tiles
from dreamsr.errors import DeviceError
from dreamsr.measure.memory import is_out_of_memory
from dreamsr.upscaling.flat import Evenness, evenness, flattened, is_flat
from dreamsr.upscaling.settings import OnProgress, Progress, Settings
from dreamsr.upscaling.sizes import Pass, whole_px

Item = TypeVar("Item")


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
    net's: `steps` for each tile and one for what is known before the first. Tiles of one size are seen together, as
    long as they have no more than `batch_px` px of the small image.
    """

    denoiser: Denoiser
    scale: Fraction | int
    settings: Settings
    seed: int
    steps: int
    tile: int
    on_evaluation: Callable[[], None] = lambda: None
    batch_px: int = 0

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
            if self.denoiser.compute.device.type == "cuda":
                torch.cuda.empty_cache()
            if run.batch_px:
                run = replace(run, batch_px=0)
                continue
            if run.tile // 2 < smallest:
                raise DeviceError(
                    f"out of memory on {self.denoiser.compute.device} even with tiles of {run.tile} px; "
                    "close other programs or choose another `device`"
                )
            run = replace(run, tile=run.tile // 2)

    def _over(self, image: Pixels, tall: int, wide: int) -> Iterator[tuple[int, Pixels]]:
        """An image [h,w,C] that enlarges to whole pixels -> the first tall x wide px of the large one, in strips.

        Each comes with the row that it begins at.
        """
        height, width, channels = image.shape
        parts: list[Pixels] = []
        for patch in blend(self._results(image), height, width, scale=self.scale):
            inside = patch.pixels[:, : tall - patch.top, : wide - patch.left]
            # A grey picture has no hue to weigh: the mean of the channels, not their luminance.
            pixels = inside if channels == 3 else inside.mean(dim=0, keepdim=True)
            parts.append(px.from_tensor(pixels, image.dtype.type))
            if patch.left + patch.pixels.shape[2] == self.scale * width:
                yield patch.top, np.concatenate(parts, axis=1)
                parts = []

    def _results(self, image: Pixels) -> Iterator[tuple[Tile, Tensor]]:
        """What becomes of each tile, [3,s*h,s*w], in their order.

        A device beside the CPU finds the next tiles ready when it is done with some, and goes on with them while these
        are blended; that they are done is told then, and not step by step.
        """
        field = NoiseField(self.seed)
        batches = together(self._parts(image), self.batch_px)
        work = ((batch, noise_of(batch, self.scale, field)) for batch in batches)
        if not self.denoiser.compute.is_beside_the_cpu:
            yield from self._computed(work)
            return
        quiet = replace(self, on_evaluation=lambda: None)
        # Both end here and not where they are forgotten: their threads cannot wait for themselves.
        with contextlib.closing(ahead(work)) as ready, contextlib.closing(ahead(quiet._computed(ready))) as results:
            for result in results:
                self._tell_of_a_tile()
                yield result

    def _parts(self, image: Pixels) -> Iterator[LowTile]:
        height, width = image.shape[:2]
        for tile in tiles(height, width, scale=self.scale, tile=self.tile):
            rows, columns = (slice(window.start, window.stop) for window in (tile.rows, tile.columns))
            even = evenness(image, rows, columns)
            yield LowTile(tile, px.to_tensor(image[rows, columns]).expand(3, -1, -1), even, is_flat(even))

    def _computed(self, work: Iterable[tuple[list[LowTile], NoiseSource]]) -> Iterator[tuple[Tile, Tensor]]:
        """Tiles and what becomes of them; where one is flat as it is, without the net."""
        for parts, noise in work:
            if parts[0].is_flat:
                self._tell_of_a_tile()
                tile, low = parts[0].tile, parts[0].low
                size = (window.enlarged(self.scale).size for window in (tile.rows, tile.columns))
                yield tile, low[:, :1, :1].expand(3, *size)
                continue
            images = self._finite(torch.stack([part.low for part in parts]), noise)
            for part, image_of_part in zip(parts, images, strict=True):
                yield part.tile, flattened(image_of_part, part.low, part.even)

    def _tell_of_a_tile(self) -> None:
        for _ in range(self.steps + 1):
            self.on_evaluation()

    def _finite(self, low: Tensor, noise: NoiseSource) -> Tensor:
        """What is not finite is computed again in float32, and never returned."""
        for denoiser in (self.denoiser, with_float32(self.denoiser)):
            with contextlib.suppress(NotFiniteError):
                return self._tile(denoiser, low, noise)
        raise DeviceError(
            "the net gave values that are not numbers, also in float32; these weights are unusable: choose others"
        )

    def _tile(self, denoiser: Denoiser, low: Tensor, noise: NoiseSource) -> Tensor:
        """Tiles of one size: [B,3,h,w] -> [B,3,s*h,s*w] float32 on the CPU. Raises NotFiniteError."""
        compute, watched = denoiser.compute, Watched(denoiser)

        def hear(_number: int, _estimate: Tensor) -> None:
            for _ in low:
                self.on_evaluation()

        with torch.inference_mode():
            images = restore(
                watched,
                compute.send(low),
                steps=self.steps,
                noise=lambda step: compute.send(noise(step)),
                scale=Fraction(self.scale),
                stochasticity=self.settings.stochasticity,
                fidelity=self.settings.fidelity,
                match=self.settings.match,
                on_step=hear,
            )
        if not watched.is_finite():
            raise NotFiniteError
        return images.float().cpu()


class LowTile(NamedTuple):
    """A tile with its pixels [3,h,w] of the small image, and how even these are."""

    tile: Tile
    low: Tensor
    even: Evenness
    is_flat: bool


def together(parts: Iterable[LowTile], most_px: int) -> Iterator[list[LowTile]]:
    """Neighbours of one size, as many as have at most so many px of the small image; those that are flat alone."""
    batch: list[LowTile] = []
    for part in parts:
        if batch:
            alike = batch[0].low.shape == part.low.shape and not (batch[0].is_flat or part.is_flat)
            if not alike or (len(batch) + 1) * part.low[0].numel() > most_px:
                yield batch
                batch = []
        batch.append(part)
    if batch:
        yield batch


def noise_of(parts: list[LowTile], scale: Fraction | int, field: NoiseField) -> NoiseSource:
    """The noise [B,3,s*h,s*w] of a batch by step; that of the start is made at once."""
    places = [(part.tile.rows.enlarged(scale), part.tile.columns.enlarged(scale)) for part in parts]

    def at(step: int) -> Tensor:
        return torch.stack(
            [field.window(step, down.start, along.start, down.size, along.size) for down, along in places]
        )

    start = at(0)
    return lambda step: start if step == 0 else at(step)


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items; each is made in a thread while the one before it is used. To be closed."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]


def _padded(image: Pixels, scale: Fraction | int) -> Pixels:
    """[h,w,C] with the lower and right edge repeated until both sides enlarge to whole pixels."""
    more = [(0, whole_px(size, scale) - size) for size in image.shape[:2]]
    return np.pad(image, (*more, (0, 0)), mode="edge") if any(after for _, after in more) else image


class NotFiniteError(ArithmeticError):
    """A net gave infinity or not-a-number."""


class Watched(Denoiser):
    """The same denoiser, which looks whether its net gives numbers.

    Looking at finished images would be too late: clipping turns infinity into an innocent white. The answers stay on
    the device until they are asked for, so that nothing waits for them in between.
    """

    def __init__(self, inner: Denoiser) -> None:
        vars(self).update(vars(inner))  # all that it has, whatever that comes to be
        self._finite: list[Tensor] = []

    def is_finite(self) -> bool:
        """Whether all that the net gave was."""
        return bool(torch.stack(self._finite).all())

    def condition(self, low: Tensor, scale: Fraction | None = None) -> Condition:
        condition = super().condition(low, scale)
        self._finite.append(torch.isfinite(condition.y).all())
        return condition

    def output(self, x_t: Tensor, condition: Condition, t: Tensor) -> Tensor:
        out = super().output(x_t, condition, t)
        self._finite.append(torch.isfinite(out).all())
        return out


def with_float32(denoiser: Denoiser) -> Denoiser:
    """The same denoiser, computing in float32."""
    precise = copy.copy(denoiser)
    precise.compute = choose_compute(str(denoiser.compute.device), "fp32")
    return precise
