"""Where a run may write: settled before its work, so that no input is replaced and no result becomes an input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dreamsr.data.sources import DataSource
from dreamsr.errors import OutputError, printable
from dreamsr.outputs import Protected, require_folder
from dreamsr.training.results.checkpoints import FOLDER
from dreamsr.training.results.log import TENSORBOARD
from dreamsr.training.results.validation import SAMPLES

WRITTEN = (FOLDER, SAMPLES, TENSORBOARD)
"""The folders that `train` fills below its own."""


def require_place(
    out: Path, source: DataSource, valid: Path | None, *, weights: Path | None = None, written: Iterable[str] = WRITTEN
) -> None:
    """Make sure that a run can write into `out` and destroys nothing that it reads. Raises OutputError.

    `out` must not lie in a folder of pictures, for its samples would be trained on at the next start; nor may pictures
    lie in `written`, the folders that are filled below `out`; nor the file of the weights begun with in `out`.
    """
    label = f"`out` {printable(out)}"
    below = [*Path(os.path.realpath(out)).parents, out]
    for field, folder in _folders(source, valid):
        if any(place in Protected([folder]) for place in below):
            raise OutputError(
                f"{label} is or lies in `{field}` {printable(folder)}, whose pictures are read at every start; "
                "choose a folder elsewhere"
            )
        above = [*Path(os.path.realpath(folder)).parents, folder]
        taken = next((name for name in written if any(place in Protected([out / name]) for place in above)), None)
        if taken is not None:
            raise OutputError(f"`{field}` {printable(folder)} is or lies in {label}/{taken}, where the run writes")
    if weights is not None and Path(os.path.realpath(weights)).parent in Protected([out]):
        raise OutputError(
            f"`weights` {printable(weights)} lies in {label} and would be replaced by what is made from it; "
            "choose another `out`"
        )
    require_folder(out, label)


def _folders(source: DataSource, valid: Path | None) -> Iterator[tuple[str, Path]]:
    """The folders that are searched for pictures, and the fields that name them."""
    named = (("data", source.data), ("hr", source.hr), ("lr", source.lr), ("valid", valid))
    for field, name in named:
        if name is not None and Path(name).is_dir():
            yield field, Path(name)
