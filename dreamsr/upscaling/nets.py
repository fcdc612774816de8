"""Which net enlarges a picture, by scale and by what the picture shows of its past; each loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.device import Compute, choose_compute
from dreamsr.core.model import build_denoiser
from dreamsr.core.pixels import Pixels
from dreamsr.errors import UsageError, WeightsError
from dreamsr.upscaling.signs import signs_of
from dreamsr.weights.file import Weights, load_weights
from dreamsr.weights.registry import AUTOMATIC, candidates, registry
from dreamsr.weights.resolve import resolve_weights

FALLBACK_STEPS = 4


@dataclass(frozen=True)
class LoadedNet:
    """One net, ready to enlarge. `name` says which weights it is made of."""

    name: str
    path: Path
    weights: Weights
    denoiser: Denoiser

    @property
    def default_steps(self) -> int:
        """The number of steps that the weights recommend."""
        return recommended_steps(self.weights.facts)

    def steps(self, wanted: int | None) -> int:
        """`wanted`, or what the weights recommend. Raises UsageError for more than the process has."""
        steps, most = wanted or self.default_steps, self.denoiser.process.timesteps
        if steps > most:
            raise UsageError(f"`steps` is {steps}, but these weights can take 1..{most}")
        return steps


class Nets:
    """The nets that an `Upscaler` may use; its constructor describes the arguments.

    Raises WeightsError, DownloadError and DeviceError; UsageError for an impossible `denoise`.
    """

    def __init__(
        self,
        weights: str,
        device: str,
        precision: Literal["auto", "bf16", "fp16", "fp32"],
        denoise: float | None,
        on_notice: Callable[[str], None] | None,
        on_download: Callable[[int, int], None] | None,
    ) -> None:
        self._partners = candidates(weights, denoise)
        self._denoise, self._chooses = 1.0 if denoise is None else denoise, denoise is None
        self.compute: Compute = choose_compute(device, precision)
        self._on_notice, self._on_download = on_notice, on_download
        self._loaded: dict[tuple[str, float], LoadedNet] = {}
        tables, alone = registry(), weights != AUTOMATIC
        scale = {
            name: self._main(name).weights.config.scale if alone else tables[name].scale for name in self._partners
        }
        self._references = {scale[name]: name for name in self._partners}

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales there are nets for, ascending."""
        return tuple(sorted(self._references))

    @property
    def largest(self) -> LoadedNet:
        """The net of the largest scale, which stands for all where one has to."""
        return self._main(self._references[self.scales[-1]])

    @property
    def continuous(self) -> bool:
        """Whether the one net enlarges by any factor up to its scale itself."""
        return len(self._references) == 1 and self.largest.weights.config.architecture.continuous

    def choose(self, pixels: Pixels, scales: Sequence[int]) -> list[LoadedNet]:
        """For passes of these scales the net of each, for a picture [h,w,C] uint8 or uint16."""
        references = [self._references[scale] for scale in scales]
        is_open = self._chooses and any(self._partners[reference] for reference in references)
        denoise = 0.0 if is_open and signs_of(pixels).pristine else self._denoise
        return [self._net(reference, denoise) for reference in references]

    def _main(self, reference: str) -> LoadedNet:
        return self._net(reference, self._denoise)

    def _net(self, reference: str, denoise: float) -> LoadedNet:
        """`denoise` of `reference`, the rest of its partner; without a partner there is only `reference` itself."""
        partner = self._partners[reference]
        share = denoise if partner else 1.0
        if (reference, share) not in self._loaded:
            self._loaded[reference, share] = self._load(reference, partner, share)
        return self._loaded[reference, share]

    def _load(self, reference: str, partner: str, share: float) -> LoadedNet:
        path = self._path(reference if share else partner)
        own = load_weights(path)
        if 0 < share < 1:
            other = load_weights(self._path(partner)).net.state_dict()
            own.net.load_state_dict(mixed(own.net.state_dict(), other, share, partner))
        net = own.net.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        names = {0.0: partner, 1.0: reference}
        name = names.get(share, f"{share:g} {reference}, {1 - share:g} {partner}")
        return LoadedNet(name, path, own, build_denoiser(own.config, net, compute=self.compute, traits=own.traits))

    def _path(self, reference: str) -> Path:
        return resolve_weights(reference, on_notice=self._on_notice, on_progress=self._on_download)


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
