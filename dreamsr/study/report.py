"""A study as tables, claims and curves. What is not trained enough to judge DREAM by is not called a result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dreamsr.bench.report import tables
from dreamsr.bench.stats import Difference, paired_over_seeds
from dreamsr.bench.sweep import Result
from dreamsr.disk import json_text, write_bytes_atomically
from dreamsr.measure.metrics import CONSISTENCY, LPIPS_ALEX, METRICS, Metric
from dreamsr.study.arms import Studio, StudyPlan
from dreamsr.study.study import BICUBIC, FIGURES, FLAT
from dreamsr.study.systems import SYSTEMS, Arm, arm_called

# Zhou et al., CVPR 2024, Table 1: SR3 on DIV2K x4, all steps; PSNR / SSIM / LPIPS (VGG, fed [0,1]).
PAPER = {
    "plain": (27.02, 0.76, 0.121),
    "p = 0": (28.67, 0.81, 0.189),
    "p = 1": (28.10, 0.79, 0.121),
    "p = 2": (28.06, 0.79, 0.140),
    "p = 3": (27.88, 0.79, 0.123),
}
JUDGES = (LPIPS_ALEX, CONSISTENCY)
"""A net that is trained enough beats bicubic in both, at one number of sampling steps."""


@dataclass(frozen=True)
class StudiedNet:
    """All runs of a kind, kept after `length` training steps and sampled in `steps`."""

    kind: str
    length: int
    steps: int


Table = Mapping[int, Sequence[float]]
"""Seed -> one value for each crop."""


@dataclass(frozen=True)
class Figures:
    """What was measured: metric key -> net -> its values; without a net metric key -> name -> a value for each crop."""

    nets: Mapping[str, Mapping[StudiedNet, Table]]
    others: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def metrics(self) -> list[Metric]:
        """Those that are there for bicubic, and so for all."""
        return [metric for metric in FIGURES if BICUBIC in self.others[metric.key]]

    def mean(self, metric: Metric, net: StudiedNet) -> float | None:
        """Over seeds and crops; None where it was not measured."""
        table = self.nets[metric.key].get(net)
        return None if table is None else fmean(fmean(values) for values in table.values())

    def difference(self, metric: Metric, a: StudiedNet, b: StudiedNet | None) -> Difference | None:
        """a - b over their common seeds; b None is bicubic. None where one of them lacks."""
        of_a = self.nets[metric.key].get(a, {})
        if b is None:
            level = self.others[metric.key].get(BICUBIC)
            of_b: Table = {} if level is None else dict.fromkeys(of_a, level)
        else:
            of_b = self.nets[metric.key].get(b, {})
        seeds = sorted(set(of_a) & set(of_b))
        if not seeds:
            return None
        values = ([table[seed] for seed in seeds] for table in (of_a, of_b))
        return paired_over_seeds(*values, lower_is_better=metric.lower_is_better)


def figures_of(results: Sequence[Result]) -> Figures:
    """The results of the sweep by net, seed and crop."""
    nets: dict[str, dict[StudiedNet, dict[int, Sequence[float]]]] = {metric.key: {} for metric in FIGURES}
    others: dict[str, dict[str, Sequence[float]]] = {metric.key: {} for metric in FIGURES}
    for metric in FIGURES:
        for (_, method, steps, _), values in tables(results, metric.key).items():
            name, _, length = method.partition("@")
            arm = arm_called(name)
            if arm is None or steps is None:
                others[metric.key][method] = values[0]
            else:
                nets[metric.key].setdefault(StudiedNet(arm.kind, int(length), steps), {})[arm.seed] = values[0]
    return Figures(nets, others)


@dataclass(frozen=True)
class Claim:
    """What the paper says of a net with DREAM beside a plain one, and what is found: metric key -> `a` minus `b`."""

    words: str
    a: StudiedNet
    b: StudiedNet
    found: Mapping[str, Difference | None]


def is_trained_enough(figures: Figures, nets: Iterable[StudiedNet]) -> bool | None:
    """Whether any of the nets beats bicubic in both JUDGES at once; None where one of them was not measured."""
    if any(judge not in figures.metrics for judge in JUDGES):
        return None
    for net in nets:
        found = [figures.difference(judge, net, None) for judge in JUDGES]
        if all(one is not None and one.mean < 0 for one in found):
            return True
    return False


@dataclass(frozen=True)
class SystemReport:
    """One system's arms in a study, a kind each: `arms` has one of each kind, the plain one first."""

    studio: Studio
    figures: Figures
    system: str
    arms: Sequence[Arm]

    @property
    def plan(self) -> StudyPlan:
        return self.studio.plan

    @property
    def steps(self) -> tuple[int, ...]:
        return self.plan.steps_of(self.arms[0])

    def net(self, arm: Arm, steps: int, length: int | None = None) -> StudiedNet:
        return StudiedNet(arm.kind, length or self.plan.max_steps, steps)

    def verdict(self) -> str:
        """The heading: only nets that are trained enough give a result."""
        enough = is_trained_enough(self.figures, (self.net(arm, n) for arm in self.arms for n in self.steps))
        if enough is None:
            return "not judged, LPIPS is missing"
        return "result" if enough else "not trained enough"

    def claims(self) -> list[Claim]:
        """Each power beside plain training: at equal steps, equal time, half the training, and fewer sampling steps."""
        plain, most = self.arms[0], self.plan.max_steps
        curve, all_steps = self.plan.curve_steps_of(plain), self.steps[-1]
        claims = []
        for arm in (one for one in self.arms if math.isfinite(one.power) and math.isinf(plain.power)):
            p, time = f"p = {arm.power:g}", self.studio.equal_time_steps(arm)
            for n in self.steps:
                pairs = [
                    (f"{p}: better after equal training steps, {n} sampling steps", self.net(arm, n)),
                    (f"{p}: better after equal training time, {n} sampling steps", self.net(arm, n, time)),
                ]
                claims += [self._claim(words, net, self.net(plain, n)) for words, net in pairs]
            words = f"{p}: half the training is as good, {curve} sampling steps"
            claims.append(self._claim(words, self.net(arm, curve, round(most / 2)), self.net(plain, curve)))
            for n in self.steps[:-1]:
                words = f"{p}: {n} sampling steps are as good as {all_steps} of plain"
                claims.append(self._claim(words, self.net(arm, n), self.net(plain, all_steps)))
        return claims

    def _claim(self, words: str, a: StudiedNet, b: StudiedNet) -> Claim:
        found = {metric.key: self.figures.difference(metric, a, b) for metric in self.figures.metrics}
        return Claim(words, a, b, found)

    def lines(self) -> list[str]:
        """The section in Markdown."""
        metrics = self.figures.metrics
        parts = [f"## {self.system}: {self.verdict()}", "", f"{SYSTEMS[self.system].about}. {self._overhead()}", ""]
        head = [f"{n} steps" for n in self.steps]
        parts += [*_header(" / ".join(m.title for m in metrics), "training steps", "seeds", *head)]
        for arm in self.arms:
            lengths = dict.fromkeys((self.plan.max_steps, self.studio.equal_time_steps(arm)))
            parts += [self._row(arm, length) for length in lengths]
        parts += ["", f"Over training, {self.plan.curve_steps_of(self.arms[0])} sampling steps:", ""]
        parts += self._curve_rows()
        if self.verdict() == "result":
            parts += ["", "DREAM minus plain, mean and 95 % interval over crops and seeds:", ""]
            parts += [*_header("claim", *(metric.heading for metric in metrics))]
            parts += [
                _line(claim.words, *(in_words(claim.found[m.key], m) for m in metrics)) for claim in self.claims()
            ]
        return [*parts, ""]

    def _overhead(self) -> str:
        if all(math.isinf(arm.power) for arm in self.arms):
            return ""
        return f"A step with DREAM takes {self.studio.overhead(self.arms[0]):.2f} times one without."

    def _row(self, arm: Arm, length: int) -> str:
        nets = [self.net(arm, n, length) for n in self.steps]
        seeds = max(len(self.figures.nets[FIGURES[0].key].get(net, {})) for net in nets)
        name = _way(arm) + (", as long as plain" if length != self.plan.max_steps else "")
        return _line(name, f"{length:,}", str(seeds), *(self._cell(net) for net in nets))

    def _cell(self, net: StudiedNet) -> str:
        return " / ".join(metric.text(self.figures.mean(metric, net)) or "-" for metric in self.figures.metrics)

    def _curve_rows(self) -> list[str]:
        lengths = self.studio.curve_lengths
        rows = _header("", *(f"{length:,}" for length in lengths))
        for arm in self.arms:
            steps = self.plan.curve_steps_of(arm)
            rows.append(_line(_way(arm), *(self._cell(self.net(arm, steps, length)) for length in lengths)))
        return rows


def in_words(found: Difference | None, metric: Metric) -> str:
    """A difference with its interval, and what becomes of the claim that it is an improvement."""
    if found is None:
        return "-"
    numbers = f"{found.mean:+.{metric.decimals}f}"
    if found.low is None or found.high is None:
        return f"{numbers}, open"
    numbers += f" [{found.low:+.{metric.decimals}f}, {found.high:+.{metric.decimals}f}]"
    if not found.is_clear:
        return f"{numbers}, open"
    return f"{numbers}, {'confirmed' if (found.mean < 0) == metric.lower_is_better else 'not confirmed'}"


def systems_of(studio: Studio, figures: Figures, arms: Iterable[Arm]) -> list[SystemReport]:
    """A report for each system, its kinds by power, plain first."""
    kinds: dict[str, dict[str, Arm]] = {}
    for arm in sorted(arms, key=lambda one: -one.power if math.isinf(one.power) else one.power):
        kinds.setdefault(arm.system, {}).setdefault(arm.kind, arm)
    return [SystemReport(studio, figures, system, list(own.values())) for system, own in sorted(kinds.items())]


def markdown(reports: Sequence[SystemReport], missing: str) -> str:
    """study.md: what every crop has without a net, a section for each system, and the paper's figures."""
    figures, plan = reports[0].figures, reports[0].plan
    kind = {0.0: "deterministic", 1.0: "ancestral"}.get(plan.stochasticity, f"stochasticity {plan.stochasticity:g}")
    lines = ["# DREAM beside plain training", ""]
    lines += [f"{plan.crops} held-out crops, {kind} sampler, nothing corrected afterwards.", ""]
    absent = ", ".join(metric.title for metric in FIGURES if metric not in figures.metrics)
    lines += [f"Not measured: {absent}{f' ({missing})' if missing else ''}.", ""] if absent else []
    lines += _header("", *(metric.heading for metric in figures.metrics))
    for name in (BICUBIC, FLAT):
        values = [fmean(figures.others[metric.key][name]) for metric in figures.metrics]
        lines.append(_line(name, *(m.text(value) for m, value in zip(figures.metrics, values, strict=True))))
    lines.append("")
    for report in reports:
        lines += report.lines()
    lines += ["The paper's own (Table 1: SR3 on DIV2K x4, all 1000 steps, LPIPS by VGG fed [0,1]): no yardstick.", ""]
    lines += _header("", "PSNR / SSIM / LPIPS")
    lines += [_line(arm, f"{psnr:.2f} / {ssim:.2f} / {lpips:.3f}") for arm, (psnr, ssim, lpips) in PAPER.items()]
    return "\n".join(lines) + "\n"


def write_report(
    studio: Studio, results: Sequence[Result], arms: Sequence[Arm], facts: Mapping[str, Any], *, missing: str
) -> list[Path]:
    """study.md, study.json, and study.png where matplotlib is installed; `missing` says why networks do not judge."""
    from dreamsr.study.curves import draw

    reports = systems_of(studio, figures_of(results), arms)
    paths = [studio.out / "study.md", studio.out / "study.json"]
    write_bytes_atomically(paths[0], markdown(reports, missing).encode())
    write_bytes_atomically(paths[1], json_text(_as_json(reports, facts), indent=1).encode())
    figure = draw(reports)
    if figure is not None:
        paths.append(studio.out / "study.png")
        write_bytes_atomically(paths[-1], figure)
    return paths


def _as_json(reports: Sequence[SystemReport], facts: Mapping[str, Any]) -> dict[str, Any]:
    figures = reports[0].figures
    return {
        "facts": facts,
        "without a net": {
            key: {name: fmean(values) for name, values in own.items()} for key, own in figures.others.items()
        },
        "nets": [
            {**asdict(net), "metric": key, "seeds": sorted(table), "mean": figures.mean(METRICS[key], net)}
            for key, own in figures.nets.items()
            for net, table in own.items()
        ],
        "systems": {
            report.system: {"verdict": report.verdict(), "claims": [asdict(claim) for claim in report.claims()]}
            for report in reports
        },
    }


def _way(arm: Arm) -> str:
    return "plain" if math.isinf(arm.power) else f"p = {arm.power:g}"


def _header(*titles: str) -> list[str]:
    return [_line(*titles), "|---" * len(titles) + "|"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
