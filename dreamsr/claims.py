"""Who works on which result: a small file beside it, so that several processes on one folder share the work.

A claim names its process and when that began. It is made by linking a whole file to its name, which one process alone
can do, on network file systems too; where there are no links, by creating it exclusively. It is stale, and may be taken
over, when its process has ended. Whether a process of another host has ended cannot be seen: its claim is stale when it
has not been touched for `STALE_SECONDS`, by the file system's clock, for who holds one touches it.
Where no claim can be made the work goes on without: two processes may then do the same, each whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import psutil

from dreamsr.config import from_mapping
from dreamsr.disk import json_text, parse_json, temp_beside
from dreamsr.errors import ConfigError

BEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
CLOCK_SECONDS = 2.0
"""How far two readings of when a process began may lie apart."""
ATTEMPTS = 5
NAME = ".dreamsr-{}.claim"


@dataclass(frozen=True)
class Claimant:
    """The process that holds a claim on an `output`; `began` in seconds since 1970."""

    host: str
    pid: int
    began: float
    output: str = ""

    def has_ended(self) -> bool:
        """Whether it is known to have ended; only a process of this host can be seen."""
        if self.host != platform.node():
            return False
        try:
            process = psutil.Process(self.pid)
            began: float = process.create_time()
            return abs(began - self.began) > CLOCK_SECONDS or bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:  # it lives, and belongs to someone else
            return False


class Claims:
    """What this process works on; all of it is given back when the block ends."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for claim in list(self._held):
            self._give_back(claim)

    def take(self, target: Path) -> bool:
        """Whether this process may work on `target` now; others may not before it is given back."""
        claim = _claim_on(target)
        try:
            for _ in range(ATTEMPTS):
                if _made(claim, target.name):
                    self._hold(claim)
                    return True
                if not _cleared(claim):
                    return False
        except OSError:  # a place without claims: what is wrong with it, if anything, is told where results are written
            return True
        return False

    def give_back(self, target: Path) -> None:
        """Let others see that this process no longer works on `target`."""
        self._give_back(_claim_on(target))

    def _hold(self, claim: Path) -> None:
        self._held.add(claim)
        if self._beat is None:
            self._beat = threading.Thread(target=self._touch_all, name="claims", daemon=True)
            self._beat.start()

    def _give_back(self, claim: Path) -> None:
        if claim in self._held:
            self._held.discard(claim)
            with contextlib.suppress(OSError):
                if _is_own(claim):  # who was suspended for long may have lost it to another host
                    claim.unlink()

    def _touch_all(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            for claim in list(self._held):
                with contextlib.suppress(OSError):
                    os.utime(claim)


def is_claimed(target: Path) -> bool:
    """Whether a process that lives works on `target`."""
    claim = _claim_on(target)
    try:
        return claim.exists() and not _cleared(claim)
    except OSError:
        return False


def remove_stale_claims(folder: Path) -> None:
    """Remove what killed processes left in `folder` (not below it)."""
    with contextlib.suppress(OSError):
        for claim in folder.glob(NAME.format("*")):
            with contextlib.suppress(OSError):
                _cleared(claim)


def _claim_on(target: Path) -> Path:
    """A hash, for the name of a result may be as long as a name can be."""
    return target.with_name(NAME.format(hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]))


def _own(output: str) -> Claimant:
    return Claimant(platform.node(), os.getpid(), psutil.Process().create_time(), output)


def _is_own(claim: Path) -> bool:
    with claim.open("rb") as file:
        held_by = _claimant(file)
    return held_by is not None and (held_by.host, held_by.pid) == (platform.node(), os.getpid())


def _made(claim: Path, output: str) -> bool:
    """Whether the claim is ours now; False where there is one. Raises OSError."""
    whole = temp_beside(claim)
    content = json_text(asdict(_own(output))).encode()
    try:
        with whole.open("xb") as file:
            file.write(content)
        with contextlib.suppress(OSError):
            os.link(whole, claim)
        if whole.stat().st_nlink > 1:  # what link() answers may be lost on the way from a network file system
            return True
    finally:
        whole.unlink(missing_ok=True)
    if os.path.lexists(claim):
        return False
    try:
        with claim.open("xb") as file:  # no links here
            file.write(content)
    except FileExistsError:
        return False
    return True


def _cleared(claim: Path) -> bool:
    """Whether nobody holds the claim, which is removed where it is stale. Raises OSError."""
    try:
        with claim.open("rb") as file, _alone(file):
            if not _is_stale(claim, file):
                return False
            if os.path.samestat(os.fstat(file.fileno()), claim.stat()):  # else another took it over meanwhile
                if sys.platform == "win32":  # where nothing that is open can be removed
                    file.close()
                claim.unlink()
    except FileNotFoundError:
        pass
    return True


@contextlib.contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """One process at a time looks at a claim to take it over, where the file system knows locks."""
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _is_stale(claim: Path, file: BinaryIO) -> bool:
    claimant = _claimant(file)
    if claimant is not None and claimant.has_ended():
        return True
    if claimant is not None and claimant.host == platform.node():
        return False
    return _now(claim) - os.fstat(file.fileno()).st_mtime > STALE_SECONDS


def _claimant(file: BinaryIO) -> Claimant | None:
    """None for what is no claim: one that was being written when its process was killed."""
    try:
        return from_mapping(Claimant, parse_json(file.read()), source=file.name)
    except (ConfigError, ValueError):
        return None


def _now(claim: Path) -> float:
    """The file system's time: that of a network may not be ours."""
    probe = temp_beside(claim)
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
