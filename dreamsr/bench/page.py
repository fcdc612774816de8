"""A report as one HTML file that needs nothing else: tables, figures, crops side by side, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamsr.bench.benchmark import Report
from dreamsr.bench.calibration import PUBLISHED, in_words
from dreamsr.bench.dataset import Dataset
from dreamsr.bench.plots import Plot
from dreamsr.bench.report import Compared, number, plain
from dreamsr.bench.speed import COLUMNS, SPEED_NOTE, cells
from dreamsr.bench.stats import Estimate
from dreamsr.bench.sweep import Result, png_base64
from dreamsr.html import encoded, template
from dreamsr.measure.metrics import LPIPS_ALEX, METRICS, PSNR_Y, REPORTED, SSIM_Y, Metric

SHOWN_PER_SET = 4
SHOWN_STEPS = 4
MAIN = (PSNR_Y, SSIM_Y, LPIPS_ALEX)
PAGE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Table:
    """Headings, and rows of as many texts each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """What is said of one set."""

    name: str
    note: str
    calibration: Sequence[str]
    figures: Table
    pairs: Table


@dataclass(frozen=True)
class Crop:
    """A PNG file in base64, and what it is of."""

    caption: str
    png: str


@dataclass(frozen=True)
class CropRow:
    """One place of one picture by every method."""

    title: str
    crops: Sequence[Crop]


def page(report: Report, plots: Sequence[Plot]) -> bytes:
    """The whole page, UTF-8; nothing in it is fetched from elsewhere."""
    data = report.data
    names = ", ".join(d["name"] for d in data["datasets"]) or "speed"
    text = template(PAGE).render(
        title=f"dreamsr bench: {names} ×{data['protocol']['scale']}",
        protocol=data["protocol"],
        environment=data["environment"],
        warnings=_warnings(data),
        sections=[_section(report, dataset["name"]) for dataset in data["datasets"]],
        speed=Table(COLUMNS, [cells(one) for one in report.speed]),
        speed_note=SPEED_NOTE,
        plots=plots,
        crops=_crop_rows(report),
        weights=_weights(data["weights"]),
        command_line=data["command_line"],
        ablation=json.dumps(plain(data["ablation"]), indent=1) if data["ablation"] else "",
    )
    return encoded(text)


def _warnings(data: Mapping[str, Any]) -> list[str]:
    lines = [f"{f['method']} did not finish {f['dataset']}: {f['message']}" for f in data["failures"]]
    lines += [f"{h['method']} on {h['dataset']}: {h['text']} ({h['images']} images)" for h in data["hints"]]
    return lines + [
        f"bicubic on {c['dataset']} gives {in_words(c)} by the {c['protocol']} protocol, "
        f"but {in_words(c, PUBLISHED)} is published: these files are other ones"
        for c in data["calibration"]
        if not c["agrees"]
    ]


def _section(report: Report, name: str) -> Section:
    facts = next(d for d in report.data["datasets"] if d["name"] == name)
    note = f"{facts['images']} pictures, {facts['megapixels']:.3f} megapixels of small images, "
    note += f"sha256 {facts['sha256'][:16]}. "
    note += "In brackets: 95 % bootstrap intervals over images; ± is the deviation over seeds."
    calibration = [
        f"Checked against the published figures: bicubic by the {c['protocol']} protocol gives {in_words(c)}, "
        "as published."
        for c in report.data["calibration"]
        if c["dataset"] == name and c["agrees"]
    ]
    return Section(name, note, calibration, _figures(report, name), _pairs(report.differences, name))


def _figures(report: Report, name: str) -> Table:
    entries = [entry for entry in report.summary if entry.dataset == name]
    metrics = [metric for key, metric in REPORTED.items() if any(key in entry.metrics for entry in entries)]
    columns = ["method", "steps", "stoch.", *(metric.heading for metric in metrics), "s / MP", "peak MB"]
    rows = [
        [entry.method, number(entry.steps, 0), number(entry.stochasticity or None, 2),
         *(_estimate(entry.metrics.get(m.key), m) for m in metrics),
         number(entry.seconds_per_megapixel, 2), number(entry.peak_memory_mb, 0)]
        for entry in entries
    ]  # fmt: skip
    return Table(columns, rows)


def _pairs(differences: Sequence[Compared], name: str) -> Table:
    columns = ["paired difference", "steps", "metric", "mean", "95 % interval", "better on", "interval leaves out 0"]
    rows = [
        [f"{d.a} − {d.b}", number(d.steps, 0), METRICS[d.metric].heading, f"{d.mean:+.4f}",
         "" if d.low is None else f"[{d.low:+.4f}, {d.high:+.4f}]", f"{d.better} of {d.images}",
         "yes" if d.clear else "no"]
        for d in differences
        if d.dataset == name and METRICS[d.metric] in MAIN and not d.stochasticity
    ]  # fmt: skip
    return Table(columns, rows)


def _weights(facts: Sequence[Mapping[str, Any]]) -> Table:
    columns = ["name", "sha256", "dtype", "device", "file"]
    return Table(columns, [[str(one[column]) for column in columns] for one in facts])


def _crop_rows(report: Report) -> list[CropRow]:
    rows = []
    for dataset in report.datasets:
        own = [r for r in report.results if r.dataset == dataset.name]
        rows += [_crop_row(dataset, number, own) for number in _spread(len(dataset), SHOWN_PER_SET)]
    return rows


def _crop_row(dataset: Dataset, number: int, own: Sequence[Result]) -> CropRow:
    item = dataset.item(number)
    results = [r for r in own if r.image == item.name and r.record.crop_png]
    first = {(r.method, r.variant.steps): r for r in reversed(results)}  # the first seed and stochasticity of each
    shown = [r for r in results if first[r.method, r.variant.steps] is r and _is_shown(r, results)]
    top, left, height, width = (n // dataset.scale for n in item.window)
    crops = [
        Crop("truth", png_base64(item.show(item.truth))),
        Crop("small image", png_base64(item.low[top : top + height, left : left + width])),
        *(Crop(_crop_caption(r), r.record.crop_png) for r in shown),
    ]
    return CropRow(f"{dataset.name} · {item.name}", crops)


def _is_shown(result: Result, results: Sequence[Result]) -> bool:
    """At most SHOWN_STEPS numbers of steps per method, spread over those there are."""
    steps = sorted({r.variant.steps or 0 for r in results if r.method == result.method})
    return (result.variant.steps or 0) in [steps[i] for i in _spread(len(steps), SHOWN_STEPS)]


def _crop_caption(result: Result) -> str:
    scores, steps = result.record.scores, result.variant.steps
    name = result.method if steps is None else f"{result.method}, steps {steps}"
    lpips = LPIPS_ALEX.text(scores.get(LPIPS_ALEX.key))
    return f"{name}: {PSNR_Y.text(scores[PSNR_Y.key])} {PSNR_Y.unit}" + (f" / {lpips}" if lpips else "")


def _estimate(estimate: Estimate | None, metric: Metric) -> str:
    """mean ± deviation over seeds [95 % interval over images], the interval for the main metrics only."""
    if estimate is None:
        return ""
    text = metric.text(estimate.mean)
    if estimate.seed_std is not None:
        text += f" ± {number(estimate.seed_std, metric.decimals + 1)}"
    if estimate.low is not None and metric in MAIN:
        text += f" [{metric.text(estimate.low)}, {metric.text(estimate.high)}]"
    return text


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of 0..count-1, the ends among them."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
