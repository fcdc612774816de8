"""Enlarge one picture, whatever it comes as; the same code serves one file, many files and Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.pixels import Pixels
from dreamsr.measure.memory import automatic_batch_px, automatic_tile_px, require_room
from dreamsr.pictures.bleed import bleed, enlarged_alpha
from dreamsr.pictures.lanczos import cropped_strips, resized, resized_strips
from dreamsr.pictures.picture import Picture, stacked
from dreamsr.upscaling.nets import LoadedNet, Nets
from dreamsr.upscaling.python_images import as_pictures
from dreamsr.upscaling.settings import OnChoice, OnProgress, Progress, Settings
from dreamsr.upscaling.sizes import Pass, Size, check_target, plan_passes
from dreamsr.upscaling.tiled import Counter, TiledRun, evaluations
from dreamsr.weights.file import Weights
from dreamsr.weights.registry import AUTOMATIC

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DEFAULT_WEIGHTS", "OnProgress", "Progress", "Settings", "Size", "Upscaler", "upscale"]

DEFAULT_WEIGHTS = AUTOMATIC

Kind = TypeVar("Kind", "Image", NDArray[Any], Tensor)


class Upscaler:
    """Weights kept loaded for many pictures; call it like a function.

    weights: auto for those that suit each picture, by its scale and by what it shows of its past; or a name, a file, a
    run folder or a Hub reference. device: auto, cuda, cuda:1, mps or cpu. precision: bf16, fp16 or fp32, auto for bf16
    where the hardware computes it. denoise: 1 repairs as the weights learnt to, 0 leaves noise and blocks as they are,
    for weights that have a partner; None repairs, but with auto only what is not pristine. on_notice hears what is
    fetched, on_download the bytes that have arrived and all bytes.
    Raises WeightsError, DownloadError, DeviceError, and UsageError for an impossible `denoise`.
    """

    def __init__(
        self,
        weights: str | Path = DEFAULT_WEIGHTS,
        device: str = "auto",
        *,
        precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto",
        denoise: float | None = None,
        on_notice: Callable[[str], None] | None = None,
        on_download: Callable[[int, int], None] | None = None,
    ) -> None:
        self.nets = Nets(str(weights), device, precision, denoise, on_notice, on_download)
        self.compute = self.nets.compute

    @property
    def path(self) -> Path:
        """The file of the weights; of several, of those for the largest scale, as in all that follows."""
        return self.nets.largest.path

    @property
    def weights(self) -> Weights:
        """The weights as they were loaded."""
        return self.nets.largest.weights

    @property
    def denoiser(self) -> Denoiser:
        """What a sampler asks."""
        return self.nets.largest.denoiser

    @property
    def scale(self) -> int:
        """The one scale that the net was trained for, or the largest; others are composed."""
        return self.scales[-1]

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales there are nets for, ascending."""
        return self.nets.scales

    @property
    def continuous(self) -> bool:
        """Whether the net enlarges by any factor up to `scale` itself."""
        return self.nets.continuous

    @property
    def default_steps(self) -> int:
        """The number of steps that the weights recommend."""
        return self.nets.largest.default_steps

    @overload
    def __call__(
        self,
        image: str | Path,
        scale: float | Size = 4,
        *,
        steps: int | None = None,
        seed: int = 0,
        fidelity: float = 0.0,
        tile: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Image: ...

    @overload
    def __call__(
        self,
        image: Kind,
        scale: float | Size = 4,
        *,
        steps: int | None = None,
        seed: int = 0,
        fidelity: float = 0.0,
        tile: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Kind: ...

    def __call__(
        self,
        image: Any,
        scale: float | Size = 4,
        *,
        steps: int | None = None,
        seed: int = 0,
        fidelity: float = 0.0,
        tile: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Enlarge one picture and return it as it came: a path or PIL image gives a PIL image.

        image: a path; a PIL image; an array [H,W] or [H,W,C]; a tensor [C,H,W] or [B,C,H,W]. Arrays and tensors
        hold uint8, uint16 or floats in 0..1; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        scale: a number in (1, 16], or a `Size`, such as `Size(width=1920)`. The other arguments are `Settings`'.
        Raises UsageError for impossible arguments, ImageError for unusable pictures, DeviceError out of memory.
        """
        size = scale if isinstance(scale, Size) else Size(scale=scale)
        settings = Settings(steps=steps, seed=seed, fidelity=fidelity, tile_px=tile)
        pictures, give_back = as_pictures(image)
        results = []
        for picture in pictures:
            height, width = size.of(picture.height, picture.width)
            results.append(self.enlarge_picture(picture, height, width, settings, on_progress=on_progress))
        return give_back(results)

    def enlarge_picture(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Picture:
        """A picture of height x width px with the same depth, colours, kind of alpha and metadata."""
        require_room(height, width, picture.pixels.shape[2] * picture.pixels.itemsize)
        return stacked(
            self.enlarge_strips(picture, height, width, settings, on_progress=on_progress, on_choice=on_choice)
        )

    def enlarge_strips(
        self,
        picture: Picture,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Iterator[Picture]:
        """The same in strips of its rows, downward, each as soon as it is known; the whole is never held.

        The net enlarges the colours, bled under transparency so that no halo appears; alpha goes beside it.
        """
        colours = picture.pixels if picture.alpha is None else bleed(picture.pixels, picture.alpha)
        alpha, top = None if picture.alpha is None else enlarged_alpha(picture.alpha, height, width), 0
        for rows in self._strips(colours, height, width, settings, on_progress=on_progress, on_choice=on_choice):
            yield replace(picture, pixels=rows, alpha=None if alpha is None else alpha[top : top + len(rows)])
            top += len(rows)

    def enlarge(
        self,
        pixels: Pixels,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None = None,
        on_choice: OnChoice | None = None,
    ) -> Pixels:
        """[h,w,C] uint8 or uint16, C 1 or 3 -> [height,width,C] of the same dtype.

        `on_choice` hears which weights it is done with. Raises UsageError for an impossible target or number of steps,
        DeviceError where memory is short.
        """
        picture = Picture(pixels)
        return self.enlarge_picture(
            picture, height, width, settings, on_progress=on_progress, on_choice=on_choice
        ).pixels

    def _strips(
        self,
        pixels: Pixels,
        height: int,
        width: int,
        settings: Settings,
        *,
        on_progress: OnProgress | None,
        on_choice: OnChoice | None,
    ) -> Iterator[Pixels]:
        """[n,width,C] downward, `height` rows in all; nothing but the last pass's result is ever in strips."""
        from_height, from_width = pixels.shape[:2]
        check_target(from_height, from_width, height, width)
        require_room(height, width, pixels.shape[2] * pixels.itemsize, copies=1)
        continuous = self.continuous
        passes = plan_passes(from_height, from_width, height, width, self.scales, continuous=continuous)
        nets = self.nets.choose(pixels, [self.scale if continuous else int(one.scale) for one in passes])
        if on_choice is not None:
            on_choice(", then ".join(dict.fromkeys(net.name for net in nets)))
        runs = self._runs(passes, nets, settings, on_progress)
        fitted = len(passes) > 1 and not continuous  # resized before the last net, not after it
        for run in runs[:-1]:
            pixels = run(pixels)
        last = passes[-1]
        strips = runs[-1].strips(_fitted(pixels, last, height, width) if fitted else pixels)
        if fitted or last.reaches(height, width):
            return cropped_strips(strips, height, width)  # of which a part of a pixel may be surplus
        box = (float(last.scale * last.height), float(last.scale * last.width))
        return resized_strips(strips, height, width, box=box)

    def _runs(
        self, passes: Sequence[Pass], nets: Sequence[LoadedNet], settings: Settings, on_progress: OnProgress | None
    ) -> list[TiledRun]:
        """Each pass with its net, its own noise and its tiles. Raises UsageError for an impossible number of steps."""
        device = self.compute.device
        tiles = [settings.tile_px or automatic_tile_px(device, scale=net.denoiser.scale) for net in nets]
        planned = [
            (one, net, net.steps(settings.steps), tile) for one, net, tile in zip(passes, nets, tiles, strict=True)
        ]
        counter = Counter(sum(evaluations(one, steps, tile) for one, _, steps, tile in planned), on_progress)
        runs = []
        for number, (one, net, steps, tile) in enumerate(planned):
            batch_px = automatic_batch_px(device, scale=net.denoiser.scale)
            if settings.tile_px is not None:  # which says how much memory to take
                batch_px = min(batch_px, tile**2)
            seed = settings.seed + number
            runs.append(TiledRun(net.denoiser, one.scale, settings, seed, steps, tile, counter.tick, batch_px))
        return runs


def _fitted(image: Pixels, one: Pass, target_height: int, target_width: int) -> Pixels:
    """Bring an image to the size that a last pass starts from, so that the pass's result begins with the target.

    The pass gives `scale * ceil(target / scale)` pixels, up to `scale - 1` more than wanted: the image's edge is
    repeated by as much, so that cropping the surplus leaves the picture unmoved.
    """
    height, width = image.shape[:2]
    tall = height * (one.scale * one.height / target_height)
    wide = width * (one.scale * one.width / target_width)
    more = ((0, math.ceil(tall) - height), (0, math.ceil(wide) - width), (0, 0))
    padded = np.pad(image, more, mode="edge") if more != ((0, 0),) * 3 else image
    return resized(padded, one.height, one.width, box=(0.0, 0.0, wide, tall))


@overload
def upscale(
    image: str | Path,
    scale: float | Size = 4,
    *,
    weights: str | Path = DEFAULT_WEIGHTS,
    device: str = "auto",
    steps: int | None = None,
    seed: int = 0,
    fidelity: float = 0.0,
    denoise: float | None = None,
    tile: int | None = None,
    on_progress: OnProgress | None = None,
) -> Image: ...


@overload
def upscale(
    image: Kind,
    scale: float | Size = 4,
    *,
    weights: str | Path = DEFAULT_WEIGHTS,
    device: str = "auto",
    steps: int | None = None,
    seed: int = 0,
    fidelity: float = 0.0,
    denoise: float | None = None,
    tile: int | None = None,
    on_progress: OnProgress | None = None,
) -> Kind: ...


def upscale(
    image: Any,
    scale: float | Size = 4,
    *,
    weights: str | Path = DEFAULT_WEIGHTS,
    device: str = "auto",
    steps: int | None = None,
    seed: int = 0,
    fidelity: float = 0.0,
    denoise: float | None = None,
    tile: int | None = None,
    on_progress: OnProgress | None = None,
) -> Any:
    """Enlarge one picture; `Upscaler` describes the arguments and keeps its weights loaded for the next one."""
    upscaler = Upscaler(weights, device, denoise=denoise)
    return upscaler(image, scale, steps=steps, seed=seed, fidelity=fidelity, tile=tile, on_progress=on_progress)
