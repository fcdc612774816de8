"""From what stands on a command line to a list of picture files: names, folders, globs and standard input."""

from __future__ import annotations

import glob
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamsr.errors import printable
from dreamsr.pictures.picture import FORMATS

STREAM = "-"
ENDINGS = frozenset(ending for endings in FORMATS.values() for ending in endings)


@dataclass(frozen=True)
class Source:
    """One input. `tree` is its folder below the folder that was named; `named` tells it stood there itself."""

    path: Path
    tree: Path = Path()
    named: bool = True

    @property
    def is_stream(self) -> bool:
        """Whether the picture comes from standard input."""
        return str(self.path) == STREAM

    @property
    def label(self) -> str:
        """The name for messages."""
        return "standard input" if self.is_stream else printable(self.path)


@dataclass(frozen=True)
class Problem:
    """An input that cannot be used, and why."""

    name: str
    reason: str


def find_sources(
    names: Sequence[str],
    *,
    recursive: bool,
    on_left_out: Callable[[str], None] | None = None,
    on_found: Callable[[], None] = lambda: None,
) -> tuple[list[Source], list[Problem]]:
    """The pictures meant by `names`, each once, in the order given (folders in the order of their names).

    Folders give the files in them whose endings are known, with `recursive` also those below. A name that does
    not exist and holds `*`, `?` or `[` is expanded here, for shells that do not. `on_left_out` hears the kind of each
    thing in a folder that is not taken, `on_found` of each that is.
    """
    sources: list[Source] = []
    problems: list[Problem] = []
    for name in names:
        found = []
        for source in _expanded(name, recursive, on_left_out or (lambda _: None)):
            found.append(source)
            on_found()
        if not found:
            problems.append(_nothing_in(name, recursive))
        sources += found
    unique: dict[str, Source] = {}
    for source in sources:
        # Letter case counts here: where A.png and a.png are two files, none may be lost.
        unique.setdefault(STREAM if source.is_stream else _real(source.path), source)
    return list(unique.values()), problems


def identity(path: Path) -> str:
    """What tells whether two paths may be one file: links resolved, letter case and accents levelled.

    On some disks A.png and a.png are one file; treating them so everywhere keeps results portable.
    """
    return unicodedata.normalize("NFC", _real(path)).casefold()


def _real(path: Path) -> str:
    """The path with links resolved; as it is where no file can have that name."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a null character
        return str(path)


def _expanded(name: str, recursive: bool, on_left_out: Callable[[str], None]) -> Iterator[Source]:
    path = Path(name)
    if name == STREAM:
        yield Source(path)
    elif is_folder(path):
        for file in _pictures_in(path, recursive, on_left_out):
            yield Source(file, file.parent.relative_to(path), named=False)
    elif not os.path.lexists(path) and glob.has_magic(name):
        pattern = _with_literal_folders(name)
        for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute patterns
            file = Path(match)
            if is_folder(file):
                if recursive:
                    yield from (
                        Source(inner, inner.parent.relative_to(file), named=False)
                        for inner in _pictures_in(file, True, on_left_out)
                    )
            else:
                yield Source(file)
    else:
        yield Source(path)


def _with_literal_folders(pattern: str) -> str:
    """`pattern` with the special characters of its leading folders that exist escaped: `a[1]/*.png` looks into a[1]."""
    folder, rest = existing_folder(pattern)
    return glob.escape(folder) + rest if folder else pattern


def existing_folder(pattern: str) -> tuple[str, str]:
    """`pattern` in two: the longest leading part, up to a slash, that is a folder as it stands, and what follows."""
    for end in range(len(pattern) - 1, -1, -1):
        if pattern[end] in ("/", os.sep) and is_folder(Path(pattern[: end + 1])):
            return pattern[: end + 1], pattern[end + 1 :]
    return "", pattern


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; not an error for names that no file can have (too long, a null character)."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file, likewise."""
    return stat.S_ISREG(_mode(path))


def exists(path: Path) -> bool:
    """Whether anything stands there, likewise."""
    return _mode(path) != 0


def _mode(path: Path) -> int:
    """What `stat` says of the kind of file; 0 for nothing."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _pictures_in(folder: Path, recursive: bool, on_left_out: Callable[[str], None]) -> Iterator[Path]:
    """Files with known endings, hidden ones left out, sorted; linked folders are not entered (they may be loops)."""
    for place, folders, files in os.walk(folder, onerror=lambda _: on_left_out("unreadable folder")):
        visible = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = visible if recursive else []
        for name in visible:
            if not recursive:
                on_left_out("folder in it")
            elif Path(place, name).is_symlink():
                on_left_out("linked folder")
        for name in sorted(files):
            if name.startswith("."):
                continue
            kind = _kind_left_out(Path(place, name))
            if kind is None:
                yield Path(place, name)
            else:
                on_left_out(kind)


def _kind_left_out(file: Path) -> str | None:
    """What a file is that is no picture by its name, or no file at all; None for pictures."""
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        return printable(ending) or "file without ending"
    # Opening a pipe waits for whoever writes to it. A link to nowhere stays: it is told as missing.
    return None if is_file(file) or not exists(file) else "pipe or device"


def _nothing_in(name: str, recursive: bool) -> Problem:
    if is_folder(Path(name)):
        if not os.access(name, os.R_OK | os.X_OK):
            return Problem(name, f"{printable(name)} cannot be read; check its permissions.")
        hint = "" if recursive else "; `recursive` looks into its folders, too"
        return Problem(name, f"{printable(name)} holds no pictures ({' '.join(sorted(ENDINGS))}){hint}.")
    return Problem(name, f"{printable(name)} matches no file; check the pattern.")
