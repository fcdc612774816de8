"""The pictures of a report: perception against distortion, quality against steps and seconds, image by image.

Each is a matplotlib figure, saved as SVG and PNG alike; matplotlib is the extra `dreamsr[bench]`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dreamsr.bench.report import Summary
from dreamsr.bench.sweep import Result
from dreamsr.errors import UsageError
from dreamsr.measure.metrics import LPIPS_ALEX, METRICS, PSNR_Y, SSIM_Y, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = 'pip install "dreamsr[bench]"'
NAMES_OF_PLOTS = ("perception-distortion", "quality-steps", "quality-seconds", "per-image")
MARKS = {".svg": b"<dc:title>dreamsr</dc:title>", ".png": b"Software\0dreamsr"}
"""What tells our figures from others."""
PANEL_INCHES = (5.2, 4.2)
DPI = 150
# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
OTHER_MARKERS = ("X", "*", "d", "p", "h", "8", "<", ">")


@dataclass(frozen=True)
class Plot:
    """One figure: a short name fit for a file, what it shows in a sentence, and both formats."""

    name: str
    caption: str
    svg: bytes
    png: bytes


def require_matplotlib() -> None:
    """Raise UsageError, with what to install, where figures cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UsageError(f"`html` and `plots` draw with matplotlib, which is not installed; {INSTALL}") from None


def plots(summary: Sequence[Summary], results: Sequence[Result]) -> list[Plot]:
    """All figures that a report has the figures for; none where only speed was measured."""
    entries = [entry for entry in summary if _value(entry, PSNR_Y.key) is not None]
    if not entries:
        return []
    perception = LPIPS_ALEX if any(_value(entry, LPIPS_ALEX.key) is not None for entry in entries) else SSIM_Y
    made = [_perception_distortion(entries, perception)]
    if any(entry.steps is not None for entry in entries):
        made.append(_against("steps", entries, perception))
    if any(entry.seconds_per_megapixel for entry in entries):
        made.append(_against("seconds_per_megapixel", entries, perception))
    scatter = _image_by_image(results)
    return [*made, *([scatter] if scatter else [])]


def _perception_distortion(summary: Sequence[Summary], perception: Metric) -> Plot:
    """Blau and Michaeli 2018: methods trade distortion for perception along a curve."""

    def draw(axes: Axes, dataset: str) -> None:
        own = [entry for entry in summary if entry.dataset == dataset]
        _lines(axes, own, PSNR_Y.key, perception.key, label_steps=True)
        axes.set_xlabel(f"{PSNR_Y.label} (right is closer to the truth)")
        better = "down looks more alike" if perception.lower_is_better else "up is closer to the truth"
        axes.set_ylabel(f"{perception.label} ({better})")

    caption = "Perception against distortion: each line is one set of weights, its points are numbers of steps."
    if perception is SSIM_Y:
        caption += " LPIPS was not available; SSIM stands in for it, which is a distortion measure too."
    return _plot("perception-distortion", caption, _datasets(summary), draw)


def _against(x: Literal["steps", "seconds_per_megapixel"], summary: Sequence[Summary], perception: Metric) -> Plot:
    """Quality over effort: two rows, PSNR-Y and the perceptual figure."""
    panels = [f"{dataset}\n{metric.key}" for metric in (PSNR_Y, perception) for dataset in _datasets(summary)]

    def draw(axes: Axes, panel: str) -> None:
        dataset, _, metric = panel.partition("\n")
        own = [entry for entry in summary if entry.dataset == dataset]
        _lines(axes, own, x, metric, label_steps=x != "steps")
        axes.set_xscale("log", base=2 if x == "steps" else 10)
        axes.set_xlabel("denoising steps" if x == "steps" else "seconds per megapixel of the small image")
        axes.set_ylabel(METRICS[metric].label)
        axes.set_title(dataset)
        if x == "steps":
            _flat_lines(axes, own, metric)
            steps = sorted({entry.steps for entry in own if entry.steps is not None})
            axes.set_xticks(steps, [str(step) for step in steps])
            axes.minorticks_off()

    name = "quality-steps" if x == "steps" else "quality-seconds"
    caption = (
        "Quality against denoising steps; bars are the deviation over seeds, level lines have no steps."
        if x == "steps"
        else "Quality against time, both as measured in this run; points carry their number of steps."
    )
    return _plot(name, caption, panels, draw, columns=len(_datasets(summary)))


def _image_by_image(results: Sequence[Result]) -> Plot | None:
    """PSNR-Y of every picture by each method, with fewest and most steps, against bicubic."""
    found = [(r, value) for r in results if (value := _finite(r.record.scores.get(PSNR_Y.key))) is not None]
    base = {(r.dataset, r.image): value for r, value in found if r.method == "bicubic"}
    others = [(r, v) for r, v in found if r.method != "bicubic" and (r.dataset, r.image) in base and not r.variant.seed]
    if not others:
        return None
    series: dict[str, list[tuple[str, float, float]]] = {}
    steps = [r.variant.steps for r, _ in others if r.variant.steps is not None]
    ends = (None, *([min(steps), max(steps)] if steps else []))
    for r, value in others:
        if r.variant.steps in ends and not r.variant.stochasticity:
            name = r.method if r.variant.steps is None else f"{r.method}, steps {r.variant.steps}"
            series.setdefault(name, []).append((r.dataset, base[r.dataset, r.image], value))

    def draw(axes: Axes, dataset: str) -> None:
        for number, (name, points) in enumerate(series.items()):
            own = [(x, y) for d, x, y in points if d == dataset]
            marker = (MARKERS + OTHER_MARKERS)[number % 14]
            axes.plot(*zip(*own, strict=True), marker, label=name, color=COLOURS[number % 6], alpha=0.75, markersize=5)
        low, high = min(base.values()) - 0.5, max(base.values()) + 0.5
        axes.axline((low, low), (high, high), color="#888888", linewidth=1, linestyle="--")
        axes.set_xlabel(f"bicubic, {PSNR_Y.label}")
        axes.set_ylabel(f"the method, {PSNR_Y.label}")
        axes.legend(fontsize=7)

    caption = "Image by image: points above the dashed line are pictures on which the method beats bicubic."
    return _plot("per-image", caption, list(dict.fromkeys(r.dataset for r, _ in others)), draw)


def _lines(axes: Axes, entries: Sequence[Summary], x: str, y: str, *, label_steps: bool) -> None:
    """One line per method and stochasticity that has steps, one marker per method that has none."""
    groups: dict[str, list[Summary]] = {}
    for entry in entries:
        if _value(entry, x) is not None and _value(entry, y) is not None:
            groups.setdefault(series_name(entry), []).append(entry)
    lines = [name for name, own in groups.items() if own[0].steps is not None]
    points = [name for name in groups if name not in lines]
    for name, own in groups.items():
        rank = (lines if name in lines else points).index(name)
        style = MARKERS[rank % 6] + "-" if name in lines else OTHER_MARKERS[rank % 8]
        colour = COLOURS[rank % 6] if name in lines else "#444444"
        own = sorted(own, key=lambda entry: entry.steps or 0)
        xs, ys = ([_value(entry, axis) or 0.0 for entry in own] for axis in (x, y))
        axes.errorbar(
            xs, ys, yerr=_bars(own, y) if x == "steps" else None, fmt=style, color=colour, label=name, capsize=2
        )
        for entry, at_x, at_y in zip(own, xs, ys, strict=True):
            if label_steps and entry.steps is not None:
                axes.annotate(str(entry.steps), (at_x, at_y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.legend(fontsize=7)


def _flat_lines(axes: Axes, entries: Sequence[Summary], metric: str) -> None:
    """Methods without steps as level lines."""
    for number, entry in enumerate(e for e in entries if e.steps is None):
        value = _value(entry, metric)
        if value is not None:
            style = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))[number % 6]
            axes.axhline(value, color="#444444", linewidth=1, linestyle=style, label=entry.method)
    axes.legend(fontsize=7)


def _bars(entries: Sequence[Summary], metric: str) -> list[float] | None:
    """The deviation over seeds of each point, or None where there was one seed.

    Not the interval over images: it is wide because pictures differ, and equally so for every method.
    """
    found = [entry.metrics[metric].seed_std for entry in entries]
    return None if None in found else [value or 0.0 for value in found]


def series_name(entry: Summary) -> str:
    """Method, and its stochasticity where there is some."""
    return f"{entry.method}, stochasticity {entry.stochasticity:g}" if entry.stochasticity else entry.method


def _value(entry: Summary, name: str) -> float | None:
    """A finite figure of a summary entry: its steps, its seconds or the mean of a metric."""
    own = {"steps": entry.steps, "seconds_per_megapixel": entry.seconds_per_megapixel}
    if name in own:
        return _finite(own[name])
    return _finite(entry.metrics[name].mean) if name in entry.metrics else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _datasets(entries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(entry.dataset for entry in entries))


def _plot(
    name: str, caption: str, panels: Sequence[str], draw: Callable[[Axes, str], None], *, columns: int | None = None
) -> Plot:
    """A grid of panels, each drawn by `draw`, as SVG (text stays text) and PNG; the same bytes every time."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = columns or min(3, len(panels))
    lines = -(-len(panels) // columns)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}
    with matplotlib.rc_context(style):
        size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(lines, columns, number + 1)
            axes.set_title(panel)
            draw(axes, panel)
        return Plot(name, caption, _saved(figure, "svg"), _saved(figure, "png"))


def _saved(figure: Figure, format: Literal["svg", "png"]) -> bytes:
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": "dreamsr"} if format == "svg" else {"Software": "dreamsr"}
    figure.savefig(file, format=format, metadata=metadata)
    return file.getvalue()
