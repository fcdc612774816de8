"""From single results to what is read: rows, summaries with their uncertainty, paired differences, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dreamsr.bench.dataset import Dataset
from dreamsr.bench.methods import Variant
from dreamsr.bench.stats import Estimate, estimate, paired
from dreamsr.bench.sweep import Result
from dreamsr.disk import json_text
from dreamsr.measure.metrics import REPORTED
from dreamsr.measure.score import means

Key = tuple[str, str, int | None, float | None]
"""(dataset, method, steps, stochasticity): a variant without its seed."""


@dataclass(frozen=True)
class Summary:
    """A method's figures on a set: an estimate for each metric that it has on all images, by key."""

    dataset: str
    method: str
    steps: int | None
    stochasticity: float | None
    kind: str
    metrics: Mapping[str, Estimate]
    seconds_per_megapixel: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Compared:
    """Method `a` minus method `b` by one metric (its key), paired over the images of a set; see `stats.Difference`."""

    dataset: str
    metric: str
    a: str
    b: str
    steps: int | None
    stochasticity: float | None
    mean: float
    low: float | None
    high: float | None
    better: int
    images: int
    clear: bool


@dataclass(frozen=True)
class SetFacts:
    """One set; `megapixels` of its small images, and a fingerprint of them and their truth as they were measured."""

    name: str
    folder: str
    images: int
    megapixels: float
    sha256: str


def set_facts(dataset: Dataset, results: Sequence[Result]) -> SetFacts:
    """What a report says of a set."""
    own = {r.image: r for r in results if r.dataset == dataset.name}
    digest = hashlib.sha256("".join(own[name].fingerprint for name in sorted(own)).encode())
    megapixels = sum(r.megapixels for r in own.values())
    return SetFacts(dataset.name, str(dataset.folder.resolve()), len(dataset), megapixels, digest.hexdigest())


@dataclass(frozen=True)
class Hint:
    """A mistake that a method's results look like they hold, on how many images of a set."""

    dataset: str
    method: str
    text: str
    images: int

    @property
    def words(self) -> str:
        """In one line."""
        return f"{self.method} on {self.dataset}: {self.text} ({self.images} images)"


def hints_of(results: Sequence[Result]) -> list[Hint]:
    """One for each set, method and mistake."""
    counts = Counter((r.dataset, r.method, text) for r in results for text in r.record.hints)
    return [Hint(*key, images) for key, images in counts.items()]


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row per set, method and variant: means over images, seconds per megapixel over the whole set."""
    groups: dict[tuple[str, str, Variant], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.method, result.variant), []).append(result)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Result]) -> dict[str, Any]:
    first = group[0]
    evaluations = [r.record.evaluations for r in group if r.record.evaluations is not None]
    return {
        "dataset": first.dataset,
        "method": first.method,
        "kind": first.kind,
        "steps": first.variant.steps,
        "stochasticity": first.variant.stochasticity,
        "seed": first.variant.seed,
        "images": len(group),
        **means([r.record.scores for r in group]),
        "seconds_per_megapixel": _seconds_per_megapixel(group),
        "peak_memory_mb": _peak_memory_mb(group),
        "evaluations": sum(evaluations) / len(evaluations) if evaluations else None,
    }


def _seconds_per_megapixel(group: Sequence[Result]) -> float | None:
    seconds = [result.record.seconds for result in group]
    if any(value is None for value in seconds):
        return None
    return sum(s for s in seconds if s is not None) / sum(result.megapixels for result in group)


def tables(results: Sequence[Result], metric: str) -> dict[Key, list[list[float]]]:
    """[seeds][images] values of one metric for every variant that has it on all images."""
    found: dict[Key, dict[int | None, list[float | None]]] = {}
    for r in results:
        key = (r.dataset, r.method, r.variant.steps, r.variant.stochasticity)
        found.setdefault(key, {}).setdefault(r.variant.seed, []).append(r.record.scores[metric])
    whole = {}
    for key, seeds in found.items():
        values = [[v for v in column if v is not None] for column in seeds.values()]
        if all(len(a) == len(b) for a, b in zip(values, seeds.values(), strict=True)):
            whole[key] = values
    return whole


def summary(results: Sequence[Result]) -> list[Summary]:
    """One entry per set, method, steps and stochasticity, in the order of the results."""
    values = {name: tables(results, name) for name in REPORTED}
    groups: dict[Key, list[Result]] = {}
    for r in results:
        groups.setdefault((r.dataset, r.method, r.variant.steps, r.variant.stochasticity), []).append(r)
    found = []
    for key, group in groups.items():
        estimates = {name: estimate(table[key]) for name, table in values.items() if key in table}
        if estimates:
            seconds, peak = _seconds_per_megapixel(group), _peak_memory_mb(group)
            found.append(Summary(*key, group[0].kind, estimates, seconds, peak))
    return found


def _peak_memory_mb(group: Sequence[Result]) -> float | None:
    peaks = [r.record.peak_memory_mb for r in group if r.record.peak_memory_mb is not None]
    return max(peaks, default=None)


def differences(results: Sequence[Result], pairs: Sequence[tuple[str, str]]) -> list[Compared]:
    """For every (a, b): a - b on each set, where both were run with the same numbers, or b has none."""
    found = []
    for metric in REPORTED.values():
        values = tables(results, metric.key)
        for a, b in pairs:
            for key in [key for key in values if key[1] == a]:
                other = next((k for k in (_with(key, b), (key[0], b, None, None)) if k in values), None)
                if other is None:
                    continue
                difference = paired(values[key], values[other], lower_is_better=metric.lower_is_better)
                if difference is not None:
                    figures = dataclasses.asdict(difference)
                    found.append(Compared(key[0], metric.key, a, b, *key[2:], **figures, clear=difference.is_clear))
    return found


def _with(key: Key, method: str) -> Key:
    return (key[0], method, key[2], key[3])


def image_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row per image and variant: what the CSV holds."""
    return [
        {
            "dataset": r.dataset,
            "image": r.image,
            "method": r.method,
            "kind": r.kind,
            "steps": r.variant.steps,
            "stochasticity": r.variant.stochasticity,
            "seed": r.variant.seed,
            **{key: r.record.scores[key] for key in REPORTED},
            "seconds": r.record.seconds,
            "seconds_per_megapixel": _seconds_per_megapixel([r]),
            "megapixels": r.megapixels,
            "peak_memory_mb": r.record.peak_memory_mb,
            "evaluations": r.record.evaluations,
            "output_sha256": r.record.output_sha256,
        }
        for r in results
    ]


def to_csv(report: Mapping[str, Any]) -> bytes:
    """One line per image and variant, each with the origin of its figures, so that none travels without it.

    Where only speed was measured, one per method and size.
    """
    text = io.StringIO()
    lines = [{**line, **_origin(report, line["method"])} for line in report["images"] or report["speed"]]
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in line.items()} for line in lines)
    return text.getvalue().encode()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, marked as text; everything else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _origin(report: Mapping[str, Any], method: str) -> dict[str, Any]:
    protocol, machine = report["protocol"], report["environment"]
    own: Mapping[str, Any] = next((w for w in report["weights"] if w["name"] == method), {})
    return {
        "protocol": protocol["name"],
        "small_image": protocol["small_image"],
        "scale": protocol["scale"],
        "weights_sha256": own.get("sha256"),
        "dtype": own.get("dtype"),
        **{name: machine[name] for name in ("device", "threads", "torch", "dreamsr", "date")},
        "command_line": report["command_line"],
    }


def number(value: float | None, decimals: int) -> str:
    """As tables show it; nothing for None."""
    return "" if value is None else f"{value:.{decimals}f}"


def to_json(report: Mapping[str, Any]) -> bytes:
    """Strict JSON, indented; infinite values (equal images) become the text "inf"."""
    return json_text(report, indent=1).encode() + b"\n"
