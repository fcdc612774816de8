"""Files that are either whole or absent, whatever happens to the writer; their folders and fingerprints."""

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamsr.errors import OutputError, printable

# .NAME.dreamsr-HOST-PID-RANDOM.tmp; the host is there because a folder may be shared by machines with equal PIDs.
TEMP_NAME = re.compile(r"\..*\.dreamsr-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.tmp", re.DOTALL)
NAME_LIMIT_BYTES = 255
NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""How file systems say that they know no fsync; everything else that it answers is a failure of the disk."""


def write_bytes_atomically(path: Path | str, data: bytes | memoryview) -> None:
    """Puts `data` at `path`, durably, in one step: readers see the old file or the whole new one.

    A link is followed; devices and pipes are written straight. Raises OutputError; nothing is left behind
    on any error, interrupts included.
    """
    target = Path(path)
    try:
        target = Path(os.path.realpath(path))
        mode = _mode_of(target)
        if mode is not None and stat.S_ISDIR(mode):
            raise OutputError(f"{printable(path)} is a folder; give the name of a file to write.")
        if mode is not None and not stat.S_ISREG(mode):
            target.write_bytes(data)
            return
        temp = temp_beside(target)
        try:
            _write_durably(temp, data, mode)
            os.replace(temp, target)  # noqa: PTH105 (tests break exactly this call)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        _sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise OutputError(_cannot_write(path, target, error)) from error


def append_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at the end of a file, durably. Raises OutputError; on any error the file is as it was before."""
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell() if file.seekable() else 0
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                _sync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except (OSError, ValueError) as error:
        raise OutputError(_cannot_write(path, path, error)) from error


def temp_beside(target: Path) -> Path:
    """A name for something unfinished in the folder of `target`, which `remove_stale_temps` clears after a kill."""
    return target.with_name(_temp_name(target.name))


def remove_stale_temps(folder: Path | str) -> int:
    """Removes what killed writers of this host left in `folder` (not below it); returns how many files.

    Where the system cannot tell whether a process lives (Windows), and for other hosts, files stay.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = TEMP_NAME.fullmatch(entry.name)
            if match is None or match["host"] != _host() or _is_alive(int(match["pid"])):
                continue
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink()
                    removed += 1
    return removed


@contextlib.contextmanager
def private_folder(kind: str) -> Iterator[Path]:
    """A new folder for temporary files that no other user can enter; with all in it, it is gone at the end.

    First, what killed processes of this host left of the same `kind` is removed; those of Windows stay. Raises
    OutputError.
    """
    place = Path(os.path.realpath(tempfile.gettempdir()))
    _remove_folders_of_the_dead(place, kind)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{_host()}-{os.getpid()}-", dir=place))
    except OSError as error:
        raise OutputError(f"{printable(place)}: no folder can be made there ({error.strerror}); set TMPDIR") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_folders_of_the_dead(place: Path, kind: str) -> None:
    name = re.compile(rf"{re.escape(kind)}-(?P<host>[0-9a-f]{{8}})-(?P<pid>[0-9]{{1,10}})-\w{{8}}", re.ASCII)
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(place)):
            match = name.fullmatch(entry.name)
            if match is not None and match["host"] == _host() and not _is_alive(int(match["pid"])):
                shutil.rmtree(entry.path, ignore_errors=True)  # which follows no links


def cache_folder() -> Path:
    """`dreamsr` in the user's folder for what can be made again (XDG_CACHE_HOME); it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dreamsr"


def ensure_folder(folder: Path, *, advice: str = "") -> None:
    """Make `folder` and those above it where they are missing. Raises OutputError, which ends in `advice`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        told = f"{printable(folder)}: cannot be made ({reason})"
        raise OutputError(f"{told}; {advice}" if advice else told) from None


def read_json(path: Path) -> Any:
    """The strict JSON in a UTF-8 file. Raises OSError, and ValueError as `parse_json` does."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """The value of strict JSON, which writes infinity as the text "inf".

    Raises ValueError for anything else: names that stand twice, NaN and Infinity, and what is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON, plain ASCII: what is infinite or no number becomes the text "inf", "-inf" or "nan"."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` with everything in it as strict JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def file_sha256(path: Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temp_name(name: str) -> str:
    ending = f".dreamsr-{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    head = f".{name}"
    while len(os.fsencode(head)) > NAME_LIMIT_BYTES - len(ending):
        head = head[:-1]  # by characters: half of one is no name everywhere
    return head + ending


def _host() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it lives and belongs to someone else
    return True


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _write_durably(temp: Path, data: bytes | memoryview, mode: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temp, flags, 0o666), "wb") as file:
        if mode is not None and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
        file.write(data)
        file.flush()
        _sync(file.fileno())


def _sync(handle: int) -> None:
    """fsync, where the file system knows it. Raises OSError."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path | str, target: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
        return f"{printable(path)} cannot be written: there is no folder {printable(target.parent)}; create it first."
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{printable(path)} cannot be written: {printable(reason)}; free the place or choose another with `output`."
