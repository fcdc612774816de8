"""Where files may be written: settled before any work begins, so that nothing is destroyed and no result homeless."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dreamsr.disk import NAME_LIMIT_BYTES
from dreamsr.errors import OutputError, printable
from dreamsr.folders import exists, identity, is_file, is_folder
from dreamsr.pictures.sniff import HEAD_BYTES, seems_to_be

IfExists = Literal["error", "skip", "overwrite", "rename"]
POLICIES: tuple[IfExists, ...] = ("error", "skip", "overwrite", "rename")
Inode = tuple[int, int]
REPORT_KINDS = frozenset({"", "a web page"})
"""What a report looks like from its first bytes: text of no other kind, or a page."""
MARK_BYTES = 4096


@dataclass(frozen=True)
class Output:
    """A file that a `field` of the request names, and the endings that it may have, lower case; none where any will do.

    `mark` stands near the beginning of every earlier one: where it is given, only a file that has it, or an empty
    one, may be replaced.
    """

    field: str
    path: Path
    endings: tuple[str, ...] = ()
    mark: bytes = b""

    @property
    def label(self) -> str:
        """Field and path for messages."""
        return f"`{self.field}` {printable(self.path)}"


class Protected:
    """Files that must not be written: inputs, and what other outputs are. By name and, where they exist, by inode."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._names: set[str] = set()
        self._inodes: set[Inode] = set()
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Protect one more file."""
        self._names.add(identity(path))
        self._inodes |= {found for found in [inode(path)] if found is not None}

    def __contains__(self, path: Path) -> bool:
        """Whether `path` is one of them, through links and in another letter case, too."""
        return identity(path) in self._names or inode(path) in self._inodes


def inode(path: Path) -> Inode | None:
    """Device and number of an existing file: two names with the same ones are one file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino)


def is_device(path: Path) -> bool:
    """Such as /dev/null: it exists, and is written to all the same."""
    return exists(path) and not is_file(path) and not is_folder(path)


def plan_outputs(
    outputs: Sequence[Output],
    *,
    inputs: Iterable[Path],
    others: Iterable[Path] = (),
    if_exists: IfExists | None = None,
) -> list[Output | None]:
    """The outputs as they may be written: None for one that stays as it is ("skip"), another name for "rename".

    `others` are outputs planned elsewhere. Without a policy a report may replace a report, and nothing else.
    Raises OutputError for an output that is an input or another output, that has a strange ending, that exists
    against the policy, or whose place cannot be written.
    """
    read, written = Protected(inputs), Protected(others)
    planned: list[Output | None] = []
    for output in outputs:
        if is_device(output.path):
            planned.append(output)
            continue
        if output.endings and output.path.suffix.lower() not in output.endings:
            raise OutputError(f"{output.label}: the name must end in {' or '.join(output.endings)}")
        if if_exists == "rename":
            path = free_name(output.path, taken=lambda path: os.path.lexists(path) or path in written)
            output = replace(output, path=path)
        if output.path in read:
            raise OutputError(f"{output.label} is an input, which would be replaced; choose another name")
        if output.path in written:
            raise OutputError(f"{output.label} is the name of another output, too; choose another name")
        kept = is_file(output.path) and not _may_replace(output, if_exists)
        if not kept:
            require_place(output.path, f"`{output.field}`")
        written.add(output.path)
        planned.append(None if kept else output)
    return planned


def _may_replace(output: Output, policy: IfExists | None) -> bool:
    """Whether the file that is there may be replaced; False where it is to be left. Raises OutputError."""
    if policy == "skip":
        return False
    if policy == "error":
        raise OutputError(f"{output.label} exists already; choose `if_exists` skip, overwrite or rename")
    try:
        with output.path.open("rb") as file:
            head = file.read(MARK_BYTES)
    except OSError as error:
        raise OutputError(f"{output.label} exists and cannot be read ({error.strerror}); choose another name") from None
    kind = seems_to_be(head[:HEAD_BYTES])
    if head and output.mark not in head:
        known = f" ({_with_article(kind)})" if kind else ""
        raise OutputError(f"{output.label} exists and is no earlier one of its kind{known}; choose another name")
    if output.endings and not output.mark and kind not in REPORT_KINDS:
        raise OutputError(f"{output.label} exists and is {_with_article(kind)}, not a report; choose another name")
    return True


def _with_article(kind: str) -> str:
    return kind if " " in kind else f"a {kind} picture"


def free_name(path: Path, *, taken: Callable[[Path], bool]) -> Path:
    """`path`, or the first of name_2.png, name_3.png... that is not taken. Raises OutputError after a million."""
    if not taken(path):
        return path
    for number in range(2, 1_000_000):
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
        if not taken(candidate):
            return candidate
    raise OutputError(f"{printable(path)}: a million names are taken; choose another folder")


def require_place(path: Path, what: str) -> None:
    """Make sure that a file can be written at `path`, making folders where need be, without making anything.

    Raises OutputError for a name that is too long, a folder of that name, and places that cannot be made or written.
    """
    label = f"{what} {printable(path)}"
    if is_device(path):
        return
    if is_folder(path):
        raise OutputError(f"{label} is a folder; give the name of a file to write.")
    require_folder(Path(_resolved(path, label)).parent, label)
    _require_names(path, label)


def require_folder(folder: Path, label: str) -> None:
    """Make sure that files can be put into `folder`, or that it can be made. Raises OutputError."""
    _require_names(folder, label)
    place = Path(_resolved(folder, label))
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"{label} cannot be written: its folder cannot be made below the file {printable(place)}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{label} cannot be written: the folder {printable(place)} is read-only; choose another")


def _resolved(path: Path, label: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"{label} cannot be written: {error}; choose another name") from None


def _require_names(path: Path, label: str) -> None:
    """Every part of the path must be a possible name."""
    for part in path.parts:
        try:
            length = len(os.fsencode(part))
        except UnicodeEncodeError:
            raise OutputError(f"{label}: the locale has no bytes for this name; set LC_ALL=C.UTF-8") from None
        if length > NAME_LIMIT_BYTES:
            raise OutputError(f"{label}: a name may have {NAME_LIMIT_BYTES} bytes, this has {length}; shorten it")
