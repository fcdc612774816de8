"""Where the results of a benchmark go: settled before any work, so that nothing that is read is destroyed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamsr.bench.dataset import picture_files
from dreamsr.bench.plots import MARKS, NAMES_OF_PLOTS, require_matplotlib
from dreamsr.errors import OutputError, printable
from dreamsr.outputs import Output, Protected, plan_outputs, require_folder
from dreamsr.weights.file import FILE_NAME

JSON_MARK, CSV_MARK, HTML_MARK = b'"format": "dreamsr-bench-', b"dataset,image,method,", b"<title>dreamsr bench"
RUN_FILES = (FILE_NAME, "config.json")


@dataclass(frozen=True)
class Places:
    """The reports to write, and the folder for figures; None for what is not wanted, `json` "-" for stdout."""

    json: Path | None = None
    csv: Path | None = None
    html: Path | None = None
    plots: Path | None = None

    def outputs(self) -> list[Output]:
        """Every file, with what an earlier one of it is known by."""
        named = (
            Output("json", self.json, (".json",), JSON_MARK) if self.json and str(self.json) != "-" else None,
            Output("csv", self.csv, (".csv",), CSV_MARK) if self.csv else None,
            Output("html", self.html, (".html", ".htm"), HTML_MARK) if self.html else None,
        )
        files = [output for output in named if output is not None]
        if self.plots is not None:
            kinds = [(name, ending) for name in NAMES_OF_PLOTS for ending in MARKS]
            files += [Output("plots", self.plots / f"{n}{ending}", (ending,), MARKS[ending]) for n, ending in kinds]
        return files


@dataclass(frozen=True)
class Read:
    """What a benchmark reads: `folders` of pictures (and those below them), and single `files`."""

    folders: tuple[Path, ...]
    files: tuple[Path, ...]

    def all_files(self) -> list[Path]:
        """The pictures of the folders, and the files."""
        below = (inner for folder in self.folders if folder.is_dir() for inner in (folder, *_folders_in(folder)))
        return [*(path for folder in below for path in picture_files(folder)), *self.files]


def weights_files(reference: str) -> list[Path]:
    """What is read where weights are a file or a training run; nothing for names and Hub references."""
    path = Path(reference)
    folder = path if path.is_dir() else path.parent
    return [path, *(folder / name for name in RUN_FILES)] if path.exists() else []


def require_places(places: Places, read: Read, *, charts: bool = True) -> None:
    """Make sure that every report can be made and written, and destroys nothing but an earlier one of it.

    Raises OutputError, and UsageError where charts cannot be drawn.
    """
    for path in (places.json, places.csv, places.html):
        if path is not None and str(path) != "-" and not path.resolve().parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.resolve().parent}; create it first")
    if places.plots is not None:
        _require_own(places.plots, "plots", read)
    plan_outputs(places.outputs(), inputs=read.all_files())
    if charts and (places.html is not None or places.plots is not None):
        require_matplotlib()


def require_pictures(folder: Path, pictures: Sequence[Path], read: Read) -> None:
    """The same for the enlarged `pictures` below `folder`; an earlier picture of the name may be replaced."""
    _require_own(folder, "save_outputs", read)
    outputs = [Output("save_outputs", path) for path in pictures]
    plan_outputs(outputs, inputs=read.all_files())


def _require_own(folder: Path, field: str, read: Read) -> None:
    """Raise OutputError for a folder that is read, too, and for one that cannot be written."""
    label = f"`{field}` {printable(folder)}"
    if folder in Protected(read.folders):
        raise OutputError(f"{label} is a folder that is read, too; choose another")
    require_folder(folder, label)


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]
