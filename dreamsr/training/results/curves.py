"""The course of a training run as one picture, drawn from its logs by matplotlib, the extra `dreamsr[bench]`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dreamsr.disk import write_bytes_atomically
from dreamsr.measure.metrics import METRICS
from dreamsr.training.results.log import STEPS, VALIDATIONS, read_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "curves.png"
PANEL_INCHES = (5.2, 3.4)
DPI = 120
COLUMNS = 3
SMOOTHED_SHARE = 0.02
"""The half-life of the smoothed loss, as a share of the steps drawn."""
MOST_POINTS = 5_000
"""More could not be told apart."""
# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Logged = dict[str, Any]
Panel = tuple[str, Callable[["Axes"], None]]


def draw_curves(out: Path) -> Path | None:
    """Draw OUT/curves.png: loss, learning rate, and each figure of the validations against the optimizer step.

    Returns its path; None where there is nothing to draw, or matplotlib is not installed. Raises OutputError.
    """
    panels = [*_training_panels(read_lines(out / STEPS)), *_validation_panels(read_lines(out / VALIDATIONS))]
    if not panels or not _has_matplotlib():
        return None
    write_bytes_atomically(out / CURVES, _drawn(panels))
    return out / CURVES


def _has_matplotlib() -> bool:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def _training_panels(entries: Sequence[Logged]) -> list[Panel]:
    """Loss and learning rate, where steps were taken."""
    steps, losses = _points(entries, "loss")
    rate_steps, rates = _points(entries, "learning_rate")
    if not len(steps):
        return []

    def draw_loss(axes: Axes) -> None:
        raw, smooth = _thinned(steps, losses), _thinned(steps, smoothed(losses))
        axes.plot(*raw, ".-", color=COLOURS[0], alpha=0.25, linewidth=0.6, markersize=2)
        axes.plot(*smooth, ".-", color=COLOURS[0], linewidth=1.6, markersize=2)
        if losses.min() > 0:
            axes.set_yscale("log")

    def draw_rate(axes: Axes) -> None:
        axes.plot(*_thinned(rate_steps, rates), ".-", color=COLOURS[1], markersize=2)

    return [("loss", draw_loss), ("learning rate", draw_rate)]


def _validation_panels(entries: Sequence[Logged]) -> list[Panel]:
    """One panel per figure that was measured; in it one line per number of denoising steps, and bicubic."""

    def panel(metric: str) -> Panel:
        def draw(axes: Axes) -> None:
            counts = sorted({row["steps"] for entry in entries for row in entry["rows"]})
            for number, count in enumerate(counts):
                rows = [
                    {"step": entry["step"], **row}
                    for entry in entries
                    for row in entry["rows"]
                    if row["steps"] == count
                ]
                label = f"{count} step" if count == 1 else f"{count} steps"
                axes.plot(*_points(rows, metric), "o-", color=COLOURS[number % len(COLOURS)], markersize=4, label=label)
            level = entries[-1]["bicubic"][metric]
            if level is not None:
                axes.axhline(level, color="#444444", linestyle="--", linewidth=1, label="bicubic")
            axes.legend(fontsize=7)

        known = METRICS[metric]
        return known.label + (", lower is better" if known.lower_is_better else ""), draw

    found = {key for entry in entries for row in entry["rows"] for key, value in row.items() if value is not None}
    return [panel(metric) for metric in METRICS if metric in found]


def _points(entries: Iterable[Logged], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(steps, values) of the entries that hold a number; of two with one step the later."""
    points = {entry["step"]: entry[name] for entry in entries if entry.get(name) is not None}
    return np.array(list(points), dtype=np.float64), np.array(list(points.values()), dtype=np.float64)


def _thinned(*series: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Of each series as many points as can be told apart, evenly chosen."""
    return [values[:: -(-len(values) // MOST_POINTS)] for values in series]


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] -> [N]: the mean of all values so far, each weighing half as much after SMOOTHED_SHARE of them.

    Weighed by what has been seen, so that the first value is its own mean and a constant stays constant.
    """
    keep = 0.5 ** (1 / max(0.5, SMOOTHED_SHARE * len(values)))
    result = np.empty_like(values)
    total = weight = 0.0
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        result[i] = total / weight
    return result


def _drawn(panels: Sequence[Panel]) -> bytes:
    """All panels in a grid, as a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    style: Any = {"font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}
    with matplotlib.rc_context(style):
        figure = Figure((PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines), dpi=DPI, layout="constrained")
        for number, (name, draw) in enumerate(panels):
            axes = figure.add_subplot(lines, columns, number + 1)
            axes.set_title(name)
            axes.set_xlabel("optimizer step")
            draw(axes)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": "dreamsr"})
    return buffer.getvalue()
