"""The published figures that a benchmark checks itself against, and how near it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Interpolation, Variant
from dreamsr.bench.protocol import PROTOCOLS
from dreamsr.bench.score import comparison
from dreamsr.measure.metrics import PSNR_Y, SSIM_Y
from dreamsr.measure.score import mean_of, score

AGREES = {PSNR_Y: 0.005, SSIM_Y: 0.00005}
"""When rounded as published."""


@dataclass(frozen=True)
class Calibration:
    """Bicubic on a standard set by a protocol: ours, and as published."""

    dataset: str
    scale: int
    protocol: str
    psnr_y: float
    ssim_y: float
    published_psnr_y: float
    published_ssim_y: float
    agrees: bool

    @property
    def ours(self) -> str:
        """Our figures in words."""
        return f"{PSNR_Y.text(self.psnr_y)} / {SSIM_Y.text(self.ssim_y)}"

    @property
    def published(self) -> str:
        """The published ones in words."""
        return f"{PSNR_Y.text(self.published_psnr_y)} / {SSIM_Y.text(self.published_ssim_y)}"


def calibration(datasets: Sequence[Dataset]) -> list[Calibration]:
    """Bicubic on standard sets by the `y-channel` protocol, beside the published figures.

    A ruler is checked against a known length before it measures: both are given, and whether they agree when
    rounded as published.
    """
    found = []
    for dataset in datasets:
        published = dataset.known.bicubic.get(dataset.scale) if dataset.known else None
        if published is None or dataset.protocol.square or dataset.low_paths is not None:
            continue
        ours = published_way(dataset)
        pairs = zip(ours, published, AGREES.values(), strict=True)
        agrees = all(abs(a - b) <= within + 1e-9 for a, b, within in pairs)
        found.append(Calibration(dataset.name, dataset.scale, "y-channel", *ours, *published, agrees))
    return found


def published_way(dataset: Dataset) -> tuple[float, float]:
    """Mean PSNR-Y and SSIM-Y of bicubic over a set by the `y-channel` protocol, whatever the set's own one is."""
    protocol = PROTOCOLS["y-channel"]
    twin = dataclasses.replace(dataset, protocol=protocol, _last={})
    bicubic = Interpolation("bicubic")
    results = [comparison(bicubic.run(twin, n, Variant()), twin.item(n), twin) for n in range(len(twin))]
    scores = [score(one, lambda *_: {}, AGREES) for one in results]
    psnr, ssim = (mean_of(one[metric.key] for one in scores) or 0.0 for metric in AGREES)
    return psnr, ssim
