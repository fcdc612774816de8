"""Finished images of a sweep, kept so that an interrupted one goes on: one small JSON file for each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamsr.disk import cache_folder, ensure_folder, write_bytes_atomically
from dreamsr.measure.score import Scores

FORMAT = "dreamsr-bench-image-2"


@dataclass(frozen=True)
class Record:
    """What is known about one image by one variant. `crop_png` is base64, "" where there is nothing to show."""

    scores: Scores
    seconds: float | None
    peak_memory_mb: float | None
    evaluations: int | None
    hints: tuple[str, ...]
    output_sha256: str
    crop_png: str


class Store:
    """Records by the sha256 of everything they depend on; safe to share between processes and to delete.

    `fresh` writes but never reads.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.fresh = fresh

    def get(self, identity: Mapping[str, Any]) -> Record | None:
        """The record of exactly this identity; None where there is none, or it is damaged."""
        if self.fresh:
            return None
        try:
            kept = json.loads(self._path(identity).read_text())
            if kept.pop("format") != FORMAT:
                return None
            kept["hints"] = tuple(kept["hints"])
            return Record(**kept)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def put(self, identity: Mapping[str, Any], record: Record) -> None:
        """Keep a record. Raises OutputError where the folder cannot be written."""
        path = self._path(identity)
        ensure_folder(path.parent)
        write_bytes_atomically(path, json.dumps({"format": FORMAT, **dataclasses.asdict(record)}).encode())

    def _path(self, identity: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"


def default_folder() -> Path:
    """`bench` in this program's folder of the user's cache."""
    return cache_folder() / "bench"
