"""The published figures that a benchmark checks itself against, and what it says of the weights it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Interpolation, Variant
from dreamsr.bench.protocol import PROTOCOLS
from dreamsr.bench.score import score
from dreamsr.bench.weights import Weights
from dreamsr.measure.lpips import Perceptual

AGREES_PSNR, AGREES_SSIM = 0.005, 0.00005


def weights_facts(method: Weights) -> dict[str, Any]:
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
        psnr, ssim = published_way(dataset)
        agrees = abs(psnr - published[0]) <= AGREES_PSNR + 1e-9 and abs(ssim - published[1]) <= AGREES_SSIM + 1e-9
        found.append({
            "dataset": dataset.name, "scale": dataset.scale, "protocol": "y-channel", "psnr_y": psnr, "ssim_y": ssim,
            "published_psnr_y": published[0], "published_ssim_y": published[1], "agrees": agrees,
        })  # fmt: skip
    return found


def published_way(dataset: Dataset) -> tuple[float, float]:
    """Mean PSNR-Y and SSIM-Y of bicubic over a set by the `y-channel` protocol, whatever the set's own one is."""
    protocol = PROTOCOLS["y-channel"]
    twin = dataclasses.replace(dataset, protocol=protocol, _last={})
    bicubic, nothing = Interpolation("bicubic"), Perceptual(())
    scores = [score(bicubic.run(twin, n, Variant()), twin.item(n), twin, nothing) for n in range(len(twin))]
    count = len(scores)
    return sum(s["psnr_y"] or 0.0 for s in scores) / count, sum(s["ssim_y"] or 0.0 for s in scores) / count
