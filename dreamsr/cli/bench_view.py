"""How `dreamsr bench` shows and writes what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dreamsr.cli import console

if TYPE_CHECKING:
    from dreamsr.bench.benchmark import Report
    from dreamsr.bench.check import Check
    from dreamsr.bench.places import Places
    from dreamsr.bench.report import SetFacts


def say_verdict(found: Check) -> None:
    """What `--check` found, the deviations in a table."""
    if found.deviations:
        rows = [(d.where, d.figure, _plain(d.before), _plain(d.now)) for d in found.deviations]
        console.table(["where", "figure", "report", "now"], rows)
    verdict = "holds" if found.holds else "does not hold"
    console.say(f"the report {verdict}: {found.compared} figures compared, {len(found.deviations)} deviations")


def _plain(value: object) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def show(report: Report, json_file: Path | None) -> None:
    """The protocol, a table per set, the published figures beside ours, and speed; nothing if JSON goes to stdout."""
    if str(json_file) == "-":
        return
    words = report.protocol
    if report.datasets:
        console.say(f"protocol {words['name']}: x{words['scale']}; {words['truth']}; {words['small_image']}")
        console.say(f"luma: {words['luma']}; {words['border_px']} px border shaved; LPIPS {words['lpips']}")
    for facts in report.sets:
        _show_set(report, facts)
    if report.speed:
        from dreamsr.bench.timing.speed import COLUMNS, SPEED_NOTE, cells

        console.table(COLUMNS, [cells(one) for one in report.speed], title=f"speed at x{words['scale']}")
        console.say(SPEED_NOTE)


def _show_set(report: Report, facts: SetFacts) -> None:
    from dreamsr.bench.report import number
    from dreamsr.measure.metrics import PSNR_Y, REPORTED

    own = [entry for entry in report.summary if entry.dataset == facts.name]
    shown = [metric for key, metric in REPORTED.items() if any(key in entry.metrics for entry in own)]
    many_seeds = any(entry.metrics[PSNR_Y.key].seed_std is not None for entry in own)
    noisy = any(entry.stochasticity for entry in own)
    rows = []
    for entry in own:
        head = [entry.method, number(entry.steps, 0), *([number(entry.stochasticity, 2)] if noisy else [])]
        means = [m.text(entry.metrics[m.key].mean if m.key in entry.metrics else None) for m in shown]
        luma = entry.metrics[PSNR_Y.key]
        half = None if luma.low is None or luma.high is None else (luma.high - luma.low) / 2
        means[0] += f" ±{PSNR_Y.text(half)}" if half is not None else ""
        seeds = [number(luma.seed_std, 3)] if many_seeds else []
        rest = [number(entry.seconds_per_megapixel, 1), number(entry.peak_memory_mb, 0)]
        rows.append([*head, *means, *seeds, *rest])
    title = f"{facts.name}: {facts.images} pictures; ± is half of PSNR-Y's 95 % interval over pictures"
    columns = ["method", "steps", *(["stoch."] if noisy else []), *(metric.title for metric in shown)]
    columns += [*(["over seeds"] if many_seeds else []), "s/MP", "MB"]
    console.table(columns, rows, title=title)
    for c in report.calibration:
        if c.dataset == facts.name:
            verdict = "as published" if c.agrees else "NOT as published"
            console.say(f"bicubic by the {c.protocol} protocol: {c.ours}, {verdict} ({c.published})")


def write(report: Report, places: Places) -> None:
    """The files asked for, each whole or not at all."""
    from dreamsr.bench import report as texts
    from dreamsr.disk import ensure_folder, write_bytes_atomically

    if str(places.json) == "-":
        console.say_json(report.data)
    elif places.json is not None:
        write_bytes_atomically(places.json, texts.to_json(report.data))
    if places.csv is not None:
        write_bytes_atomically(places.csv, texts.to_csv(report.data))
    if places.html is None and places.plots is None:
        return
    from dreamsr.bench.page import page
    from dreamsr.bench.plots import plots as draw

    figures = draw(report.summary, report.results)
    if places.html is not None:
        write_bytes_atomically(places.html, page(report, figures))
    if places.plots is not None:
        ensure_folder(places.plots)
        for figure in figures:
            write_bytes_atomically(places.plots / f"{figure.name}.svg", figure.svg)
            write_bytes_atomically(places.plots / f"{figure.name}.png", figure.png)
