"""What a training run is asked for, and who hears how it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamsr.data.sources import DataSource
from dreamsr.training.config import TrainConfig
from dreamsr.training.start import Start

if TYPE_CHECKING:
    from dreamsr.training.results.log import TrainProgress
    from dreamsr.training.results.validation import Validation


@dataclass(frozen=True)
class RunRequest:
    """One training run.

    config: what is trained, and how.
    source: the pictures to train on.
    out: the folder of the run.
    device: "auto", "cuda", "cuda:1", "mps" or "cpu".
    resume: whether to go on with the run in `out`, from its newest checkpoint.
    workers: processes that prepare crops beside the one that trains; the result does not depend on them.
    valid: a folder of pictures to measure on.
    start: weights to begin with, of which config.json and the new weights' headers tell; a resumed run keeps its own.
    """

    config: TrainConfig
    source: DataSource
    out: Path
    device: str = "auto"
    resume: bool = False
    workers: int = 0
    valid: Path | None = None
    start: Start | None = None


def _ignore(*_news: object) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Listener:
    """Who is told how a run goes, where its files are written; by default nobody.

    on_progress: of every optimizer step; a KeyboardInterrupt raised there stops the run as ctrl-C does.
    on_notice: in words, of what people should know.
    on_validation: of every validation.
    on_download: (bytes done, bytes in all) of weights that are fetched first.
    on_scan: (photos looked at, photos in all) before the first step.
    """

    on_progress: Callable[[TrainProgress], None] = _ignore
    on_notice: Callable[[str], None] = _ignore
    on_validation: Callable[[Validation], None] = _ignore
    on_download: Callable[[int, int], None] = _ignore
    on_scan: Callable[[int, int], None] = _ignore


NOBODY = Listener()
