"""Some of the user's own pictures, kept out of training so that what it gained can be measured on them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamsr.data.paired import Twin, twins_below
from dreamsr.data.photo_files import PhotoFile
from dreamsr.data.scan import pictures_below
from dreamsr.data.sources import DataSource, find_photos
from dreamsr.data.stream import PREFIX
from dreamsr.errors import ImageError, UsageError, printable
from dreamsr.training.config import TrainConfig
from dreamsr.training.results.validation import (
    Example,
    degraded_example,
    examples_below,
    least_side_px,
    paired_example,
)

SHARE = 0.1
MOST_HELD_OUT = 20
FEWEST_PICTURES = 3
"""With fewer, training on all of them is worth more than knowing what it gained."""


@dataclass(frozen=True)
class HeldOut:
    """`examples` to measure on; in words, what was done and why; the names of pictures not to be trained on."""

    examples: tuple[Example, ...]
    told: str
    left_out: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the examples, in their order."""
        return tuple(one.name for one in self.examples)


def hold_out(source: DataSource, config: TrainConfig, *, share: float = SHARE) -> HeldOut:
    """A `share` of the pictures in a folder, in shards or of pairs: at least 1, at most MOST_HELD_OUT.

    Which ones depends on their names alone, so it is the same every time. Pictures too small to train or to measure
    on are left where they are. Nothing is held out of a stream, which has no names, nor of fewer than
    FEWEST_PICTURES. Raises DataError for missing data, UsageError for a share outside [0, 0.5].
    """
    if not 0 <= share <= 0.5:
        raise UsageError(f"the held-out share is {share:g}, but it must be in 0..0.5")
    if share == 0:
        return HeldOut((), "no picture is held out, as asked: what training gains on them is not measured")
    if source.data is not None and source.data.startswith(PREFIX):
        return HeldOut((), "no picture is held out of a stream: what training gains on its pictures is not measured")
    pool = _paired(source, config) if source.data is None else _lone(source, config)
    if len(pool) < FEWEST_PICTURES:
        return HeldOut(
            (), f"{len(pool)} pictures are too few to hold one out: what training gains on them is not measured"
        )
    wanted = min(MOST_HELD_OUT, max(1, round(share * len(pool))))
    examples = _first_examples(pool, wanted)
    told = f"{len(examples)} of {len(pool)} pictures are held out of training, to measure on"
    return HeldOut(examples, told, frozenset(one.name for one in examples))


def held_out_by_user(folder: Path, source: DataSource, config: TrainConfig) -> HeldOut:
    """The first `valid_limit` usable pictures of a folder; all in it that `source` holds too are left out of training.

    Raises DataError for a missing folder and where no picture is usable.
    """
    examples = tuple(examples_below(folder, config))
    places = {os.path.realpath(file.path) for file in pictures_below(folder)}
    shared = frozenset(file.name for file in _files(source) if os.path.realpath(file.path) in places)
    also = f"; {len(shared)} that lie there are left out of training" if shared else ""
    return HeldOut(examples, f"{len(examples)} pictures in {printable(folder)} are measured on{also}", shared)


def _files(source: DataSource) -> list[PhotoFile]:
    """The files of a folder of pictures, or of the large ones of pairs; none of a stream or of shards."""
    if source.data is None:
        return pictures_below(source.hr) if source.hr is not None and source.hr.is_dir() else []
    return [] if source.data.startswith(PREFIX) else [file for file in find_photos(source.data) if file.offset is None]


@dataclass(frozen=True)
class _Candidate:
    """A picture that can be held out, by its name; `read` raises ImageError where it is damaged after all."""

    name: str
    read: Callable[[int], Example]
    """From the number that seeds its damage."""


def _first_examples(pool: Sequence[_Candidate], wanted: int) -> tuple[Example, ...]:
    """The first in an order that names alone decide, and that has nothing to do with the alphabet."""
    examples: list[Example] = []
    for candidate in sorted(pool, key=lambda one: hashlib.sha256(one.name.encode(errors="surrogateescape")).digest()):
        if len(examples) == wanted:
            break
        try:
            examples.append(candidate.read(len(examples)))
        except ImageError:  # training passes over it too, and says so
            continue
    return tuple(examples)


def _lone(source: DataSource, config: TrainConfig) -> list[_Candidate]:
    """The large enough pictures of a folder or of shards."""
    assert source.data is not None
    need = max(config.crops.smallest_side_px, least_side_px(config.model.scale))
    files = [file for file in find_photos(source.data) if file.name not in source.exclude]

    def candidate(file: PhotoFile) -> _Candidate:
        def read(number: int) -> Example:
            return degraded_example(file.name, file.decoded(need), config, number=number)

        return _Candidate(file.name, read)

    return [candidate(file) for file in files if _is_large(file, need)]


def _paired(source: DataSource, config: TrainConfig) -> list[_Candidate]:
    """The large enough pairs, by the names of their large pictures."""
    assert source.hr is not None
    assert source.lr is not None
    scale = config.model.scale
    need = max(config.crops.smallest_side_px, least_side_px(scale))

    def candidate(twin: Twin) -> _Candidate:
        def read(number: int) -> Example:  # noqa: ARG001 - given pairs are damaged already
            return paired_example(
                twin.large.name, twin.large.decoded(need), twin.low.decoded(need // scale), scale=scale
            )

        return _Candidate(twin.large.name, read)

    twins = twins_below(source.hr, source.lr, source.exclude)
    return [candidate(twin) for twin in twins if _is_large(twin.large, need)]


def _is_large(file: PhotoFile, need_px: int) -> bool:
    try:
        file.probed(need_px)
    except ImageError:
        return False
    return True
