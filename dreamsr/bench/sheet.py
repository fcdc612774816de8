"""A contact sheet: pictures without a truth, enlarged by every method, one detailed place of each side by side.

Nothing is scored. The place is chosen from the small picture alone, before any method ran, and shown at 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamsr.bench.benchmark import methods_of, open_all, threads
from dreamsr.bench.dataset import Dataset, partner, read_rgb8, shown_window
from dreamsr.bench.methods import Command, Interpolation, Method, Outputs, Variant
from dreamsr.bench.page import Crop, CropRow, sheet_page
from dreamsr.bench.request import BenchRequest
from dreamsr.bench.sweep import OnSweepProgress, SweepProgress, png_base64
from dreamsr.bench.weights import WeightsMethod
from dreamsr.core.device import choose_compute
from dreamsr.core.pixels import Pixels
from dreamsr.errors import DataError
from dreamsr.measure.machine import environment

SHOWN_PX = 320
"""Side of a crop, of the large picture."""
MARGIN_PX = 48
"""How much of the small picture around the crop the methods see, too."""


@dataclass(frozen=True)
class Sheet:
    """The page, and what could not be shown on it, in words."""

    html: bytes
    failures: Sequence[str]


@dataclass(frozen=True)
class Spot:
    """A place of a small picture: `low` with a margin, and the crop (top, left, height, width) within it.

    `corner` is where `low` begins in the whole picture.
    """

    path: Path
    low: Pixels
    corner: tuple[int, int]
    crop: tuple[int, int, int, int]

    def cut(self, image: Pixels, scale: int, *, whole: bool) -> Pixels:
        """The crop from `low` enlarged, or from the `whole` picture enlarged; at scale 1 from the small ones."""
        top, left, height, width = self.crop
        down, right = self.corner if whole else (0, 0)
        rows = slice((top + down) * scale, (top + down + height) * scale)
        return image[rows, (left + right) * scale : (left + right + width) * scale]


def spot_of(path: Path, scale: int) -> Spot:
    """The most detailed place of a picture that makes a crop of SHOWN_PX. Raises ImageError."""
    low, _ = read_rgb8(path)
    top, left, height, width = shown_window(low, 0, max(8, SHOWN_PX // scale))
    down, right = max(0, top - MARGIN_PX), max(0, left - MARGIN_PX)
    part = low[down : top + height + MARGIN_PX, right : left + width + MARGIN_PX]
    return Spot(path, np.ascontiguousarray(part), (down, right), (top - down, left - right, height, width))


def sheet(
    request: BenchRequest,
    *,
    command_line: str = "",
    on_progress: OnSweepProgress | None = None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> Sheet:
    """Enlarge a place of every picture by every method of a request, whose `data` are small pictures here.

    A method that fails on a picture leaves its crop out and is told. Raises UsageError, DataError, ImageError,
    WeightsError, DeviceError.
    """
    with threads(request.threads):
        methods, _ = methods_of(request, on_notice)
        rows: list[tuple[str, Spot, list[Crop]]] = []
        sets = open_all(request)
        for dataset in sets:
            for path in dataset.paths:
                spot = spot_of(path, request.scale)
                small = np.repeat(np.repeat(spot.cut(spot.low, 1, whole=False), request.scale, 0), request.scale, 1)
                rows.append((dataset.name, spot, [Crop("small picture", png_base64(small))]))
        failures = []
        todo = list(_todo(methods, sets, rows))
        for number, (method, variant, dataset, spot, crops) in enumerate(todo):
            if on_progress is not None:
                on_progress(SweepProgress(number, len(todo), f"{method.name} {variant.label} {spot.path.name}", None))
            try:
                crops.append(Crop(_caption(method, variant), png_base64(_crop(method, variant, dataset, spot))))
            except DataError as error:
                failures.append(f"{method.name} did not finish {spot.path.name}: {error}")
            if number + 1 == len(todo) or todo[number + 1][0] is not method:
                method.release()
    found = [CropRow(f"{name} · {spot.path.name}", crops) for name, spot, crops in rows]
    machine = environment(choose_compute(request.device, request.precision))
    title = f"dreamsr bench: {', '.join(one.name for one in sets)} ×{request.scale}"
    return Sheet(sheet_page(title, found, failures, machine, command_line), failures)


Todo = tuple[Method, Variant, Dataset, Spot, list[Crop]]


def _todo(methods: Sequence[Method], sets: Sequence[Dataset], rows: Sequence[tuple[str, Spot, list[Crop]]]
          ) -> Iterator[Todo]:  # fmt: skip
    """Method by method, so that weights are loaded once."""
    of_name = {dataset.name: dataset for dataset in sets}
    for method in methods:
        for variant in method.variants():
            for name, spot, crops in rows:
                yield method, variant, of_name[name], spot, crops


def _crop(method: Method, variant: Variant, dataset: Dataset, spot: Spot) -> Pixels:
    if isinstance(method, Outputs):
        whole, _ = read_rgb8(partner(spot.path, method.folder_for(dataset)))
        return spot.cut(whole, dataset.scale, whole=True)
    assert isinstance(method, Interpolation | Command | WeightsMethod)
    pixels = method.enlarged(spot.low, dataset.scale, variant).pixels
    assert pixels is not None
    return spot.cut(pixels, dataset.scale, whole=False)


def _caption(method: Method, variant: Variant) -> str:
    return " ".join(part for part in (method.name, variant.label) if part)
