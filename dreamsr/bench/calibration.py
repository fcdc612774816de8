"""The published figures that a benchmark checks itself against, and what it says of the weights it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Interpolation, Variant
from dreamsr.bench.protocol import PROTOCOLS
from dreamsr.bench.score import comparison
from dreamsr.bench.weights import WeightsMethod
from dreamsr.measure.metrics import PSNR_Y, SSIM_Y
from dreamsr.measure.score import mean_of, score

AGREES = {PSNR_Y: 0.005, SSIM_Y: 0.00005}
"""When rounded as published."""
PUBLISHED = "published_"


def weights_facts(method: WeightsMethod) -> dict[str, Any]:
    """What a report says of one weights file."""
    return {
        "name": method.name,
        "file": str(method.path),
        "sha256": method.sha256,
        "size_bytes": method.path.stat().st_size,
        "steps": list(method.steps),
        "device": str(method.compute.device),
        "dtype": str(method.compute.dtype).removeprefix("torch."),
    }


def calibration(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
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
        found.append({
            "dataset": dataset.name, "scale": dataset.scale, "protocol": "y-channel",
            **{metric.key: value for metric, value in zip(AGREES, ours, strict=True)},
            **{PUBLISHED + metric.key: value for metric, value in zip(AGREES, published, strict=True)},
            "agrees": all(abs(a - b) <= within + 1e-9 for a, b, within in pairs),
        })  # fmt: skip
    return found


def in_words(entry: Mapping[str, Any], prefix: str = "") -> str:
    """PSNR-Y and SSIM-Y of a calibration, ours or with the prefix PUBLISHED those."""
    return " / ".join(metric.text(entry[prefix + metric.key]) for metric in AGREES)


def published_way(dataset: Dataset) -> tuple[float, float]:
    """Mean PSNR-Y and SSIM-Y of bicubic over a set by the `y-channel` protocol, whatever the set's own one is."""
    protocol = PROTOCOLS["y-channel"]
    twin = dataclasses.replace(dataset, protocol=protocol, _last={})
    bicubic = Interpolation("bicubic")
    results = [comparison(bicubic.run(twin, n, Variant()), twin.item(n), twin) for n in range(len(twin))]
    scores = [score(one, lambda *_: {}, AGREES) for one in results]
    psnr, ssim = (mean_of(one[metric.key] for one in scores) or 0.0 for metric in AGREES)
    return psnr, ssim
