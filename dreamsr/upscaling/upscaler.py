"""Enlarge one picture, whatever it comes as; the same code serves one file, many files and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamsr.core.device import Precision, choose_compute
from dreamsr.core.model import build_denoiser
from dreamsr.core.pixels import Pixels
from dreamsr.errors import UsageError, WeightsError
from dreamsr.measure.memory import automatic_batch_px, automatic_tile_px, require_room
from dreamsr.pictures.lanczos import resized
from dreamsr.pictures.picture import Picture
from dreamsr.upscaling.bleed import bleed, enlarged_alpha
from dreamsr.upscaling.fitting import fit
from dreamsr.upscaling.python_images import as_pictures
from dreamsr.upscaling.settings import OnProgress, Progress, Settings
from dreamsr.upscaling.sizes import Pass, Size, check_target, plan_passes
from dreamsr.upscaling.tiled import Counter, TiledRun
from dreamsr.weights.file import load_weights
from dreamsr.weights.registry import denoise_partner
from dreamsr.weights.resolve import resolve_weights

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DEFAULT_WEIGHTS", "OnProgress", "Progress", "Settings", "Size", "Upscaler", "upscale"]

DEFAULT_WEIGHTS = "photo-x4"
FALLBACK_STEPS = 4


def recommended_steps(facts: Mapping[str, Any]) -> int:
    """How many steps the header of some weights recommends; `FALLBACK_STEPS` where it says nothing usable."""
    told = facts.get("default_steps")
    return told if isinstance(told, int) and told > 0 else FALLBACK_STEPS


def mixed(own: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float, partner: str) -> dict[str, Tensor]:
    """`share` of the parameters `own`, the rest of `other`'s: what lies between two nets that began as one does what
    lies between them (Wang et al. 2019, Deep Network Interpolation). Raises WeightsError for other nets."""
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in other.items()}:
        raise WeightsError(f"{partner} is another net than the weights it should be mixed with; use them alone")
    return {name: torch.lerp(other[name], value, share) for name, value in own.items()}


Kind = TypeVar("Kind", "Image", NDArray[Any], Tensor)


class Upscaler:
    """Weights kept loaded for many pictures; call it like a function.

    weights: a name, a file, a run folder or a Hub reference. device: auto, cuda, cuda:1, mps or cpu.
    precision: bf16, fp16 or fp32, auto for bf16 where the hardware computes it. denoise: 1 repairs as the weights
    learnt to, 0 leaves noise and blocks as they are, for weights that have a partner. on_notice hears what is fetched,
    on_download the bytes that have arrived and all bytes.
    Raises WeightsError, DownloadError, DeviceError, and UsageError for an impossible `denoise`.
    """

    def __init__(
        self,
        weights: str | Path = DEFAULT_WEIGHTS,
        device: str = "auto",
        *,
        precision: Precision = "auto",
        denoise: float = 1.0,
        on_notice: Callable[[str], None] | None = None,
        on_download: Callable[[int, int], None] | None = None,
    ) -> None:
        partner = denoise_partner(str(weights), denoise)
        self.compute = choose_compute(device, precision)
        self.path = resolve_weights(str(weights), on_notice=on_notice, on_progress=on_download)
        self.weights = load_weights(self.path)
        if partner:
            own = self.weights.net.state_dict()
            other = load_weights(resolve_weights(partner, on_notice=on_notice, on_progress=on_download))
            self.weights.net.load_state_dict(mixed(own, other.net.state_dict(), denoise, partner))
        net = self.weights.net.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.denoiser = build_denoiser(self.weights.config, net, compute=self.compute, traits=self.weights.traits)

    @property
    def scale(self) -> int:
        """The one scale that the net was trained for, or the largest; others are composed from it."""
        return self.weights.config.scale

    @property
    def continuous(self) -> bool:
        """Whether the net enlarges by any factor up to `scale` itself."""
        return self.weights.config.architecture.continuous

    @property
    def default_steps(self) -> int:
        """The number of steps that the weights recommend."""
        return recommended_steps(self.weights.facts)

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
        self, picture: Picture, height: int, width: int, settings: Settings, *, on_progress: OnProgress | None = None
    ) -> Picture:
        """A picture of height x width px with the same depth, colours, kind of alpha and metadata.

        The net enlarges the colours, bled under transparency so that no halo appears; alpha goes beside it.
        """
        if picture.alpha is None:
            pixels = self.enlarge(picture.pixels, height, width, settings, on_progress=on_progress)
            return replace(picture, pixels=pixels)
        colours = bleed(picture.pixels, picture.alpha)
        pixels = self.enlarge(colours, height, width, settings, on_progress=on_progress)
        return replace(picture, pixels=pixels, alpha=enlarged_alpha(picture.alpha, height, width))

    def enlarge(
        self, pixels: Pixels, height: int, width: int, settings: Settings, *, on_progress: OnProgress | None = None
    ) -> Pixels:
        """[h,w,C] uint8 or uint16, C 1 or 3 -> [height,width,C] of the same dtype.

        Raises UsageError for an impossible target or number of steps, DeviceError where memory is short.
        """
        from_height, from_width = pixels.shape[:2]
        check_target(from_height, from_width, height, width)
        require_room(height, width, pixels.shape[2] * pixels.itemsize)
        steps = self._steps(settings)
        tile = settings.tile_px or automatic_tile_px(self.compute.device, scale=self.scale)
        batch_px = automatic_batch_px(self.compute.device, scale=self.scale)
        if settings.tile_px is not None:  # which says how much memory to take
            batch_px = min(batch_px, tile**2)
        passes = plan_passes(from_height, from_width, height, width, self.scale, continuous=self.continuous)
        fitted = len(passes) > 1 and not self.continuous  # resized before the last net, not after it
        counter = Counter(passes, steps, tile, on_progress)
        image: Pixels = pixels
        for number, one in enumerate(passes):
            if fitted and number == len(passes) - 1:
                image = fit(image, one, height, width)
            seed = settings.seed + number
            run = TiledRun(self.denoiser, one.scale, settings, seed, steps, tile, counter.tick, batch_px)
            image = run(image)
        return image[:height, :width] if fitted else _completed(image, passes[-1], height, width)

    def _steps(self, settings: Settings) -> int:
        steps, most = settings.steps or self.default_steps, self.denoiser.process.timesteps
        if steps > most:
            raise UsageError(f"`steps` is {steps}, but these weights can take 1..{most}")
        return steps


def _completed(image: Pixels, last: Pass, height: int, width: int) -> Pixels:
    """The target from the last pass's result, of which a part of a pixel may be surplus."""
    if last.reaches(height, width):
        return image[:height, :width]
    tall, wide = float(last.scale * last.height), float(last.scale * last.width)
    return resized(image, height, width, box=(0.0, 0.0, wide, tall))


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
    denoise: float = 1.0,
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
    denoise: float = 1.0,
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
    denoise: float = 1.0,
    tile: int | None = None,
    on_progress: OnProgress | None = None,
) -> Any:
    """Enlarge one picture; `Upscaler` describes the arguments and keeps its weights loaded for the next one."""
    upscaler = Upscaler(weights, device, denoise=denoise)
    return upscaler(image, scale, steps=steps, seed=seed, fidelity=fidelity, tile=tile, on_progress=on_progress)
