"""Measurements that weights are published with: from a report of `dreamsr bench --json`, or plain rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamsr.disk import read_json
from dreamsr.errors import UsageError, printable
from dreamsr.measure.metrics import REPORTED
from dreamsr.weights.registry import MeasuredRow

REPORT = "dreamsr-bench-"


def read_metrics(path: Path, *, sha256: str) -> tuple[MeasuredRow, ...]:
    """The measurements of the weights with this sha256; every one names its dataset and protocol.

    Raises UsageError for a file that is neither a report nor rows, or a report about other weights.
    """
    try:
        found = read_json(path)
        if isinstance(found, dict) and str(found.get("format", "")).startswith(REPORT):
            return _from_report(found, sha256, printable(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{printable(path)}: no readable JSON ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{printable(path)}: a damaged report of `dreamsr bench` ({error!r})") from None
    rows = found if isinstance(found, list) else [found]
    if not rows or not all(isinstance(row, dict) and {"dataset", "protocol"} <= set(row) for row in rows):
        raise UsageError(
            f"{printable(path)}: give a report of `dreamsr bench --json`, or rows with dataset and protocol"
        )
    return tuple({key: value for key, value in row.items() if isinstance(value, str | int | float)} for row in rows)


def _from_report(report: Mapping[str, Any], sha256: str, path: str) -> tuple[MeasuredRow, ...]:
    measured = next((one for one in report["weights"] if one["sha256"] == sha256), None)
    if measured is None:
        raise UsageError(f"{path}: measured other weights, none has sha256 {sha256[:12]}; run `dreamsr bench` on these")
    words, where = report["protocol"], report["environment"]
    protocol = (
        f"{words['summary']}; small images: {words['small_image']}; {words['border_px']} px border shaved; "
        f"{measured['device']} {measured['dtype']}, torch {where['torch']}, dreamsr {where['dreamsr']}"
    )
    return tuple(
        {
            "dataset": f"{row['dataset']} ({row['images']} images)",
            "protocol": protocol,
            **{key: row[key] for key in ("steps", "seed") if row[key] is not None},
            **{key: round(row[key], 4) for key in REPORTED if row.get(key) is not None},
        }
        for row in report["rows"]
        if row["method"] == measured["name"]
    )
