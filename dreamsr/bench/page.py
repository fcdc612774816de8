"""A report as one HTML file that needs nothing else: tables, figures, crops side by side, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamsr.bench.benchmark import Report
from dreamsr.bench.dataset import Dataset
from dreamsr.bench.plots import Plot
from dreamsr.bench.report import Compared, SetFacts, number
from dreamsr.bench.stats import Estimate
from dreamsr.bench.sweep import Result, png_base64
from dreamsr.bench.timing.speed import COLUMNS, SPEED_NOTE, cells
from dreamsr.disk import json_text
from dreamsr.html import encoded, template
from dreamsr.measure.metrics import LPIPS_ALEX, METRICS, PSNR_Y, REPORTED, SSIM_Y, Metric

SHOWN_PER_SET = 4
SHOWN_STEPS = 4
MAIN = (PSNR_Y, SSIM_Y, LPIPS_ALEX)
PAGE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Grid:
    """Headings, and rows of as many texts each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """What is said of one set."""

    name: str
    note: str
    calibration: Sequence[str]
    figures: Grid
    pairs: Grid


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
    names = ", ".join(one.name for one in report.sets) or "speed"
    text = template(PAGE).render(
        title=f"dreamsr bench: {names} ×{report.request.scale}",
        protocol=report.protocol,
        environment=report.environment,
        warnings=_warnings(report),
        sections=[_section(report, facts) for facts in report.sets],
        speed=Grid(COLUMNS, [cells(one) for one in report.speed]),
        speed_note=SPEED_NOTE,
        plots=plots,
        crops=_crop_rows(report),
        crops_note="The most detailed place of each truth, chosen before any method ran, at twice its size. PSNR-Y and "
        "LPIPS are those of the whole picture.",
        natural=False,
        weights=Grid(
            ("name", "sha256", "dtype", "device", "file"),
            [(one.name, one.sha256, one.dtype, one.device, one.file) for one in report.weights],
        ),
        command_line=report.command_line,
        ablation=json_text(report.ablation, indent=1) if report.ablation else "",
    )
    return encoded(text)


def sheet_page(
    title: str, rows: Sequence[CropRow], warnings: Sequence[str], environment: Mapping[str, Any], command_line: str
) -> bytes:
    """A contact sheet: crops at 100 % and how they were made."""
    text = template(PAGE).render(
        title=title,
        protocol={"summary": "no truth, so no figures: one place of each picture by every method"},
        environment=environment,
        warnings=warnings,
        sections=[],
        speed=Grid((), ()),
        plots=[],
        crops=rows,
        crops_note="The most detailed place of each small picture, chosen before any method ran; one pixel is one "
        "pixel of the screen.",
        natural=True,
        weights=Grid((), ()),
        command_line=command_line,
        ablation="",
    )
    return encoded(text)


def _warnings(report: Report) -> list[str]:
    lines = [f"{f.method} did not finish {f.dataset}: {f.message}" for f in report.failures]
    lines += [hint.words for hint in report.hints]
    return lines + [
        f"bicubic on {c.dataset} gives {c.ours} by the {c.protocol} protocol, "
        f"but {c.published} is published: these files are other ones"
        for c in report.calibration
        if not c.agrees
    ]


def _section(report: Report, facts: SetFacts) -> Section:
    note = f"{facts.images} pictures, {facts.megapixels:.3f} megapixels of small images, sha256 {facts.sha256[:16]}. "
    note += "In brackets: 95 % bootstrap intervals over images; ± is the deviation over seeds."
    calibration = [
        f"Checked against the published figures: bicubic by the {c.protocol} protocol gives {c.ours}, as published."
        for c in report.calibration
        if c.dataset == facts.name and c.agrees
    ]
    pairs = _pairs(report.differences, facts.name)
    return Section(facts.name, note, calibration, _figures(report, facts.name), pairs)


def _figures(report: Report, name: str) -> Grid:
    entries = [entry for entry in report.summary if entry.dataset == name]
    metrics = [metric for key, metric in REPORTED.items() if any(key in entry.metrics for entry in entries)]
    columns = ["method", "steps", "stoch.", *(metric.heading for metric in metrics), "s / MP", "peak MB"]
    rows = [
        [entry.method, number(entry.steps, 0), number(entry.stochasticity or None, 2),
         *(_estimate(entry.metrics.get(m.key), m) for m in metrics),
         number(entry.seconds_per_megapixel, 2), number(entry.peak_memory_mb, 0)]
        for entry in entries
    ]  # fmt: skip
    return Grid(columns, rows)


def _pairs(differences: Sequence[Compared], name: str) -> Grid:
    columns = ["paired difference", "steps", "metric", "mean", "95 % interval", "better on", "interval leaves out 0"]
    rows = [
        [f"{d.a} − {d.b}", number(d.steps, 0), METRICS[d.metric].heading, f"{d.mean:+.4f}",
         "" if d.low is None else f"[{d.low:+.4f}, {d.high:+.4f}]", f"{d.better} of {d.images}",
         "yes" if d.clear else "no"]
        for d in differences
        if d.dataset == name and METRICS[d.metric] in MAIN and not d.stochasticity
    ]  # fmt: skip
    return Grid(columns, rows)


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
