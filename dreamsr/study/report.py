"""A study as tables and curves: means and deviations over seeds, beside the figures of DREAM's paper."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dreamsr.disk import write_bytes_atomically
from dreamsr.measure.metrics import LPIPS_ALEX, METRICS, PSNR_Y, SSIM_Y
from dreamsr.study.study import FIGURES, Row

# Zhou et al., CVPR 2024, Table 1: SR3 on DIV2K x4, all steps; PSNR / SSIM / LPIPS (VGG, fed [0,1]).
PAPER = {
    "plain": (27.02, 0.76, 0.121),
    "p=0": (28.67, 0.81, 0.189),
    "p=1": (28.10, 0.79, 0.121),
    "p=2": (28.06, 0.79, 0.140),
    "p=3": (27.88, 0.79, 0.123),
}
Cell = tuple[float, float]
"""(mean, standard deviation over seeds)."""


def cells(rows: Sequence[Row], arm: str, steps: int, stochasticity: float) -> dict[str, Cell | None]:
    """The figures of one arm at one number of steps; None where a figure is missing."""
    chosen = [r for r in rows if (r.arm, r.steps, r.stochasticity) == (arm, steps, stochasticity)]
    return {metric.key: _spread([getattr(row, metric.key) for row in chosen]) for metric in FIGURES}


def markdown(rows: Sequence[Row]) -> str:
    """One table per stochasticity, arms down, numbers of sampling steps across; then the paper's."""
    steps = sorted({row.steps for row in rows})
    arms = list(dict.fromkeys(row.arm for row in rows))
    parts = []
    for stochasticity in sorted({row.stochasticity for row in rows}, reverse=True):
        kind = {0.0: "deterministic", 1.0: "ancestral"}.get(stochasticity, f"stochasticity {stochasticity:g}")
        lines = [
            f"{kind} sampler, {' / '.join(metric.title for metric in FIGURES)}, mean (deviation over seeds of PSNR-Y)",
            "",
            "| arm | training steps | seconds | " + " | ".join(f"{n} steps" for n in steps) + " |",
            "|---" * (3 + len(steps)) + "|",
        ]
        for arm in arms:
            own = [row for row in rows if row.arm == arm]
            figures = [_words(cells(rows, arm, n, stochasticity)) for n in steps]
            seconds = mean(row.train_seconds for row in own)
            lines.append(f"| {arm} | {own[0].train_steps} | {seconds:.0f} | " + " | ".join(figures) + " |")
        parts.append("\n".join(lines))
    paper = [f"| {arm} | {psnr:.2f} / {ssim:.2f} / {lpips:.3f} |" for arm, (psnr, ssim, lpips) in PAPER.items()]
    head = ["The paper's own (Table 1: SR3 on DIV2K x4, all 1000 steps, other metrics):", "", "| arm | |", "|---|---|"]
    parts.append("\n".join([*head, *paper]))
    return "\n\n".join(parts) + "\n"


def write_report(rows: Sequence[Row], facts: dict[str, Any], out: Path) -> list[Path]:
    """study.json, study.md, and study.png where matplotlib is installed."""
    from dataclasses import asdict

    found = {"facts": facts, "rows": [asdict(row) for row in rows]}
    paths = [out / "study.json", out / "study.md"]
    write_bytes_atomically(paths[0], json.dumps(found, indent=1).encode())
    write_bytes_atomically(paths[1], markdown(rows).encode())
    figure = draw(rows, out)
    if figure is not None:
        paths.append(out / "study.png")
        write_bytes_atomically(paths[-1], figure)
    return paths


def draw(rows: Sequence[Row], out: Path) -> bytes | None:
    """PNG: PSNR-Y and LPIPS (SSIM-Y where missing) against sampling steps, and PSNR-Y over training."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    import io

    from dreamsr.bench.plots import COLOURS, MARKERS

    perception = SSIM_Y if any(row.lpips_alex is None for row in rows) else LPIPS_ALEX
    stochasticity = max(row.stochasticity for row in rows)
    steps = sorted({row.steps for row in rows})
    arms = list(dict.fromkeys(row.arm for row in rows))
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index, arm in enumerate(arms):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "label": arm}
        for axes, metric in ((left, PSNR_Y), (middle, perception)):
            found = [cells(rows, arm, n, stochasticity)[metric.key] for n in steps]
            axes.errorbar(steps, [c[0] for c in found if c], [c[1] for c in found if c], capsize=2, **style)
    for index, (arm, curve) in enumerate(training_curves(out, arms).items()):
        right.plot(*zip(*curve, strict=True), color=COLOURS[index % len(COLOURS)], marker="o", label=arm)
    for axes, metric in ((left, PSNR_Y), (middle, perception)):
        axes.set(xscale="log", xlabel="sampling steps", ylabel=metric.label)
        axes.set_xticks(steps, [str(n) for n in steps])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    right.set(xlabel="training steps", ylabel="PSNR-Y on whole held-out crops, dB")
    right.grid(alpha=0.3)
    left.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def training_curves(out: Path, arms: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """PSNR-Y at the runs' own validations, mean over seeds: arm -> (training step, dB)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for arm in arms:
        points: dict[int, list[float]] = {}
        for log in sorted(out.glob(f"{arm.replace('=', '-')}-seed*/valid.jsonl")):
            for line in log.read_text().splitlines():
                found = json.loads(line)
                points.setdefault(found["step"], []).append(found["rows"][-1][PSNR_Y.key])
        if points:
            curves[arm] = [(step, mean(values)) for step, values in sorted(points.items())]
    return curves


def _spread(values: Sequence[float | None]) -> Cell | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return (mean(known), stdev(known) if len(known) > 1 else 0.0) if known else None


def _words(found: dict[str, Cell | None]) -> str:
    words = {key: "-" if cell is None else METRICS[key].text(cell[0]) for key, cell in found.items()}
    luma = found[PSNR_Y.key]
    if luma is not None:
        words[PSNR_Y.key] += f" ({PSNR_Y.text(luma[1])})"
    return " / ".join(words.values())
