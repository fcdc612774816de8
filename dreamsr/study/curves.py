"""A study as a picture: a row of panels for each system, over sampling steps and over training."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dreamsr.bench.plots import COLOURS, MARKERS
from dreamsr.measure.metrics import LPIPS_ALEX, PSNR_Y, SSIM_Y, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dreamsr.study.report import StudiedNet, SystemReport

PANEL_INCHES = (4.6, 3.8)
DPI = 130


def draw(reports: Sequence[SystemReport]) -> bytes | None:
    """PNG: PSNR-Y and LPIPS (SSIM-Y where that is missing); None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    measured = reports[0].figures.metrics
    metrics = (PSNR_Y, LPIPS_ALEX if LPIPS_ALEX in measured else SSIM_Y)
    size = (PANEL_INCHES[0] * 2 * len(metrics), PANEL_INCHES[1] * len(reports))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(reports), 2 * len(metrics), squeeze=False)
    for report, row in zip(reports, grid, strict=True):
        for metric, over_steps, over_training in zip(metrics, row[::2], row[1::2], strict=True):
            _over_steps(over_steps, report, metric)
            _over_training(over_training, report, metric)
        row[0].legend(fontsize=8, title=report.system)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "dreamsr"})
    return buffer.getvalue()


def _over_steps(axes: Axes, report: SystemReport, metric: Metric) -> None:
    for number, arm in enumerate(report.arms):
        _plot(axes, report, metric, [(n, report.net(arm, n)) for n in report.steps], number)
    axes.set(xscale="log", xlabel="sampling steps", ylabel=metric.label)
    axes.set_xticks(report.steps, [str(n) for n in report.steps])
    axes.minorticks_off()


def _over_training(axes: Axes, report: SystemReport, metric: Metric) -> None:
    curve = report.plan.curve_steps_of(report.arms[0])
    for number, arm in enumerate(report.arms):
        points = [(length, report.net(arm, curve, length)) for length in report.studio.lengths(arm)]
        _plot(axes, report, metric, points, number)
    axes.set(xlabel=f"training steps ({curve} sampling steps)", ylabel=metric.label)


def _plot(
    axes: Axes, report: SystemReport, metric: Metric, points: Iterable[tuple[int, StudiedNet]], number: int
) -> None:
    """One arm, where it was measured, and bicubic as a level line once."""
    known = [(x, value) for x, net in points if (value := report.figures.mean(metric, net)) is not None]
    label = report.arms[number].kind.removeprefix(f"{report.system}-")
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.plot([x for x, _ in known], [y for _, y in known], color=colour, marker=marker, label=label)
    if number == 0:
        level = report.figures.others[metric.key]["bicubic"]
        axes.axhline(sum(level) / len(level), color="#444444", linestyle="--", linewidth=1, label="bicubic")
        axes.grid(alpha=0.3)
