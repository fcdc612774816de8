"""A report as one HTML file that needs nothing else: figures, tables, crops side by side, and how it was made."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreamsr.bench.benchmark import Report
from dreamsr.bench.calibration import PUBLISHED, in_words
from dreamsr.bench.dataset import Dataset
from dreamsr.bench.plots import Plot
from dreamsr.bench.report import Compared, plain
from dreamsr.bench.speed import speed_columns
from dreamsr.bench.stats import Estimate
from dreamsr.bench.sweep import Result, png_base64
from dreamsr.measure.metrics import LPIPS_ALEX, METRICS, PSNR_Y, REPORTED, SSIM_Y, Metric

SHOWN_PER_SET = 4
SHOWN_STEPS = 4
MAIN = (PSNR_Y, SSIM_Y, LPIPS_ALEX)
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } figcaption, .note { color: #777; font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { border-bottom: 1px solid #8884; padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tbody tr:hover { background: #8881; }
.wide { overflow-x: auto; } .plot { background: white; margin: 1rem 0; max-width: 100%; }
.plot img { max-width: 100%; height: auto; display: block; }
.crops { display: flex; flex-wrap: wrap; gap: .6rem; margin: .5rem 0 1.5rem; }
.crops figure { margin: 0; width: 192px; } .crops img { width: 192px; image-rendering: pixelated; display: block; }
.bad { color: #c33; } .good { color: #293; } dt { font-weight: 600; } dd { margin: 0 0 .3rem; }
pre { overflow-x: auto; background: #8881; padding: .6rem; }
"""


def page(report: Report, figures: Sequence[Plot]) -> bytes:
    """The whole page, UTF-8; nothing in it is fetched from elsewhere."""
    data = report.data
    names = ", ".join(d["name"] for d in data["datasets"])
    title = f"dreamsr bench: {names} ×{data['protocol']['scale']}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=note>{_text(data['protocol']['summary'])} · dreamsr {_text(data['environment']['dreamsr'])} · "
        f"{_text(data['environment']['date'])}</p>",
        _warnings(data),
        *(_figure(plot) for plot in figures),
        *(_dataset_section(report, dataset["name"]) for dataset in data["datasets"]),
        _speed_section(data["speed"]),
        _crops_section(report),
        _origin(data),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title>"
    head += "<meta name=viewport content='width=device-width, initial-scale=1'>"
    # Nothing may be loaded or run, should a name in the report be hostile after all.
    head += "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; "
    head += f"style-src 'unsafe-inline'\"><link rel=icon href='data:,'><style>{STYLE}</style>"
    return (head + "<body>" + "\n".join(body) + "</body></html>\n").encode()


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _warnings(data: Mapping[str, Any]) -> str:
    lines = [f"{f['method']} did not finish {f['dataset']}: {f['message']}" for f in data["failures"]]
    lines += [f"{h['method']} on {h['dataset']}: {h['text']} ({h['images']} images)" for h in data["hints"]]
    lines += [
        f"bicubic on {c['dataset']} gives {in_words(c)} by the {c['protocol']} protocol, "
        f"but {in_words(c, PUBLISHED)} is published: these files are other ones"
        for c in data["calibration"]
        if not c["agrees"]
    ]
    return "".join(f"<p class=bad>{_text(line)}</p>" for line in lines)


def _figure(plot: Plot) -> str:
    source = base64.b64encode(plot.svg).decode("ascii")
    return (
        f"<figure class=plot id={_text(plot.name)}><img alt='{_text(plot.caption)}' "
        f"src='data:image/svg+xml;base64,{source}'></figure><figcaption>{_text(plot.caption)}</figcaption>"
    )


def _dataset_section(report: Report, name: str) -> str:
    data = report.data
    facts = next(d for d in data["datasets"] if d["name"] == name)
    rows = [entry for entry in report.summary if entry.dataset == name]
    metrics = [metric for key, metric in REPORTED.items() if any(key in entry.metrics for entry in rows)]
    columns = ["method", "steps", "stoch.", *(metric.heading for metric in metrics), "s / MP", "peak MB"]
    lines = [
        [entry.method, _number(entry.steps, 0), _number(entry.stochasticity or None, 2),
         *(_estimate(entry.metrics.get(m.key), m) for m in metrics),
         _number(entry.seconds_per_megapixel, 2), _number(entry.peak_memory_mb, 0)]
        for entry in rows
    ]  # fmt: skip
    note = f"{facts['images']} pictures, {facts['megapixels']:.3f} megapixels of small images, "
    note += f"sha256 {facts['sha256'][:16]}. "
    note += "In brackets: 95 % bootstrap intervals over images; ± is the deviation over seeds."
    calibration = "".join(
        f"<p class=good>Checked against the published figures: bicubic by the {_text(c['protocol'])} protocol gives "
        f"{in_words(c)}, as published.</p>"
        for c in data["calibration"]
        if c["dataset"] == name and c["agrees"]
    )
    head = f"<h2>{_text(name)}</h2><p class=note>{_text(note)}</p>"
    return head + calibration + _table(columns, lines) + _pairs(report.differences, name)


def _pairs(differences: Sequence[Compared], name: str) -> str:
    rows = [
        [f"{d.a} − {d.b}", _number(d.steps, 0), METRICS[d.metric].heading, f"{d.mean:+.4f}",
         "" if d.low is None else f"[{d.low:+.4f}, {d.high:+.4f}]", f"{d.better} of {d.images}",
         "yes" if d.clear else "no"]
        for d in differences
        if d.dataset == name and METRICS[d.metric] in MAIN and not d.stochasticity
    ]  # fmt: skip
    if not rows:
        return ""
    columns = ["paired difference", "steps", "metric", "mean", "95 % interval", "better on", "interval leaves out 0"]
    return f"<details><summary>Paired differences</summary>{_table(columns, rows)}</details>"


def _speed_section(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    columns = ["method", "steps", *(name.replace("_", " ") for name in speed_columns({}))]
    lines = [
        [e["method"], _number(e["steps"], 0), *(_number(v, 2) for v in speed_columns(e).values())]
        for e in entries
        if "failure" not in e
    ]
    note = f"One picture of {entries[0].get('low_px', '')} px a side; megapixels are of the small image."
    return f"<h2>Speed</h2><p class=note>{_text(note)}</p>{_table(columns, lines)}"


def _crops_section(report: Report) -> str:
    parts = ["<h2>Crops</h2><p class=note>The most detailed place of each truth, chosen before any method ran, "]
    parts.append("at twice its size. PSNR-Y and LPIPS are those of the whole picture.</p>")
    for dataset in report.datasets:
        own = [r for r in report.results if r.dataset == dataset.name]
        for number in _spread(len(dataset), SHOWN_PER_SET):
            parts.append(_crop_row(dataset, number, own))
    return "".join(parts)


def _crop_row(dataset: Dataset, number: int, own: Sequence[Result]) -> str:
    item = dataset.item(number)
    results = [r for r in own if r.image == item.name and r.record.crop_png]
    first = {(r.method, r.variant.steps): r for r in reversed(results)}  # the first seed and stochasticity of each
    shown = [r for r in results if first[r.method, r.variant.steps] is r and _is_shown(r, results)]
    top, left, height, width = (n // dataset.scale for n in item.window)
    cells = [
        _crop("truth", png_base64(item.show(item.truth))),
        _crop("small image", png_base64(item.low[top : top + height, left : left + width])),
        *(_crop(_crop_caption(r), r.record.crop_png) for r in shown),
    ]
    return f"<h3>{_text(dataset.name)} · {_text(item.name)}</h3><div class=crops>{''.join(cells)}</div>"


def _is_shown(result: Result, results: Sequence[Result]) -> bool:
    """At most SHOWN_STEPS numbers of steps per method, spread over those there are."""
    steps = sorted({r.variant.steps or 0 for r in results if r.method == result.method})
    return (result.variant.steps or 0) in [steps[i] for i in _spread(len(steps), SHOWN_STEPS)]


def _crop_caption(result: Result) -> str:
    scores, steps = result.record.scores, result.variant.steps
    name = result.method if steps is None else f"{result.method}, steps {steps}"
    lpips = LPIPS_ALEX.text(scores.get(LPIPS_ALEX.key))
    return f"{name}: {PSNR_Y.text(scores[PSNR_Y.key])} {PSNR_Y.unit}" + (f" / {lpips}" if lpips else "")


def _crop(caption: str, png: str) -> str:
    return (
        f"<figure><img alt='{_text(caption)}' src='data:image/png;base64,{png}'>"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _origin(data: Mapping[str, Any]) -> str:
    """Everything that is needed to repeat or to doubt the figures."""
    weights = [[w["name"], w["sha256"], w["dtype"], w["device"], w["file"]] for w in data["weights"]]
    parts = [
        "<h2>Protocol</h2>", _list(data["protocol"]), "<h2>Environment</h2>", _list(data["environment"]),
        "<h2>Weights</h2>", _table(["name", "sha256", "dtype", "device", "file"], weights),
        f"<h2>Command line</h2><pre>{_text(data['command_line'])}</pre>",
    ]  # fmt: skip
    if data["ablation"]:
        parts.append(f"<h2>Ablation</h2><pre>{_text(json.dumps(plain(data['ablation']), indent=1))}</pre>")
    return "".join(parts)


def _list(values: Mapping[str, Any]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in values.items()) + "</dl>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _estimate(estimate: Estimate | None, metric: Metric) -> str:
    """mean ± deviation over seeds [95 % interval over images], the interval for the main metrics only."""
    if estimate is None:
        return ""
    text = metric.text(estimate.mean)
    if estimate.seed_std is not None:
        text += f" ± {_number(estimate.seed_std, metric.decimals + 1)}"
    if estimate.low is not None and metric in MAIN:
        text += f" [{metric.text(estimate.low)}, {metric.text(estimate.high)}]"
    return text


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of 0..count-1, the ends among them."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
