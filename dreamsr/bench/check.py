"""Run a report again and say whether its figures hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from dreamsr.bench.benchmark import FORMAT, OnNotice, Report, bench, read_by
from dreamsr.bench.places import Places, require_places
from dreamsr.bench.request import BenchRequest
from dreamsr.bench.sweep import OnSweepProgress
from dreamsr.disk import read_json
from dreamsr.errors import DataError, UsageError, printable
from dreamsr.measure.metrics import REPORTED

NOWHERE = Places()
Figure = float | Literal["inf", "-inf", "nan"] | None


@dataclass(frozen=True)
class Deviation:
    """A figure, or a fact under the figures, that came out differently; `figure` names it."""

    where: str
    figure: str
    before: Any
    now: Any


@dataclass(frozen=True)
class Check:
    """`compared` figures, those that deviate, and the report of the new run."""

    compared: int
    deviations: tuple[Deviation, ...]
    report: Report

    @property
    def holds(self) -> bool:
        return not self.deviations


def read_report(path: Path) -> dict[str, Any]:
    """Raises DataError for a file that is no report."""
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable report ({error}); give the file that `json` wrote") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise DataError(f"{path}: not a report of dreamsr bench ({FORMAT}); give the file that `json` wrote")
    return report


def request_of(report: Mapping[str, Any], source: Path) -> BenchRequest:
    """The request that a report answers. Raises DataError where it is damaged."""
    known = {field.name for field in dataclasses.fields(BenchRequest)}
    given = report.get("request")
    if isinstance(given, dict) and given.get("speed") is True and given.get("data") == []:
        raise DataError(f"{source}: holds timings alone, which are not compared; give a report on pictures")
    if not isinstance(given, dict) or not set(given) <= known or not given.get("data"):
        raise DataError(f"{source}: its request is damaged or of another version of dreamsr; make the report again")
    return cast(BenchRequest, _checked(BenchRequest, given, source, "request"))


def _checked(kind: Any, value: object, source: Path, what: str) -> Any:
    """`value` as a `kind`, strict about types. Raises DataError."""
    try:
        # JSON mode takes objects for dataclasses and arrays for tuples.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (what, *first["loc"]))
        raise DataError(f"{source}: its {what} is damaged ({printable(where)}: {first['msg']})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: its {what} is damaged ({printable(str(error))})") from None


@dataclass(frozen=True)
class Named:
    """A set of pictures, or weights, and what they were."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Place:
    """What a row is found by again."""

    dataset: str
    method: str
    steps: int | None
    stochasticity: float | None
    seed: int | None


ReportRow: Any = dataclasses.make_dataclass(
    "ReportRow", [(key, Figure, None) for key in REPORTED], bases=(Place,), frozen=True
)
"""A place with its figures; "inf" stands for an infinite value."""


def require_figures(report: Mapping[str, Any], source: Path) -> None:
    """Raise DataError unless everything that is compared has the type that it must have."""
    for what, kind in (("datasets", list[Named]), ("weights", list[Named]), ("rows", list[ReportRow])):
        _checked(kind, report.get(what), source, what)


def refuse_commands(request: BenchRequest, source: Path, on_notice: OnNotice, *, run_commands: bool) -> None:
    """Show the commands that a report would run. Raises UsageError unless they may be run."""
    for name, command in request.commands:
        on_notice(f"{source} runs {name}: {command}")
    if request.commands and not run_commands:
        raise UsageError(
            f"{source} holds commands that would be run on this machine, {len(request.commands)} in all, shown above; "
            "nothing was run. Read them, and give `run_commands` if you trust them"
        )


def check(
    path: Path,
    *,
    run_commands: bool = False,
    work: Path | None = None,
    places: Places = NOWHERE,
    on_progress: OnSweepProgress | None = None,
    on_notice: OnNotice = lambda _: None,
) -> Check:
    """Compute everything in a report anew, nothing taken from finished images, and compare.

    Figures may differ by what their metrics allow. Timings are not compared: they belong to the machine and the hour.

    Commands of other tools in it are run only with `run_commands`. `places` is where the caller will put the new
    report: not over the old one. Raises DataError, UsageError and OutputError.
    """
    before = read_report(path)
    request = request_of(before, path)
    require_figures(before, path)
    refuse_commands(request, path, on_notice, run_commands=run_commands)
    read = read_by(request)
    require_places(places, dataclasses.replace(read, files=(*read.files, path)))
    line = f"dreamsr bench --check {path}"
    now = bench(request, work=work, fresh=True, command_line=line, on_progress=on_progress, on_notice=on_notice)
    facts = _facts(before, now.data)
    old, new = (_rows(data) for data in (before, now.data))
    compared = 0
    deviations = [*facts, *(Deviation(_where(key), "row", "given", "missing") for key in old if key not in new)]
    for key, row in old.items():
        for name, metric in REPORTED.items():
            if key in new and row.get(name) is not None:
                compared += 1
                if not _agrees(row[name], new[key][name], metric.agrees_within):
                    deviations.append(Deviation(_where(key), name, row[name], new[key][name]))
    return Check(compared, tuple(deviations), now)


def _facts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Deviation]:
    """Pictures and weights that are no longer the same files."""
    found = []
    for group, what in (("datasets", "pictures"), ("weights", "weights")):
        old, new = ({one["name"]: one["sha256"] for one in data[group]} for data in (before, now))
        found += [
            Deviation(name, f"{what} sha256", old[name], new.get(name)) for name in old if old[name] != new.get(name)
        ]
    return found


def _rows(data: Mapping[str, Any]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    names = [field.name for field in dataclasses.fields(Place)]
    return {tuple(row[name] for name in names): row for row in data["rows"]}


def _where(key: tuple[Any, ...]) -> str:
    dataset, method, steps, stochasticity, seed = key
    more = [f"steps {steps}" if steps is not None else "", f"stochasticity {stochasticity:g}" if stochasticity else ""]
    more.append(f"seed {seed}" if seed is not None else "")
    return " ".join(part for part in (dataset, method, *more) if part)


def _agrees(before: Any, now: Any, tolerance: float) -> bool:
    if now is None:
        return False
    a, b = float(before), float(now)  # "inf" stands for an infinite value
    return a == b or abs(a - b) <= tolerance
