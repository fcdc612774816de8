"""Talking to the Hub through huggingface_hub: within bounds of time, quietly, and with errors one can act on."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import dreamsr
from dreamsr.errors import DownloadError
from dreamsr.files.picture import shown
from dreamsr.files.watch import GivenUp, Silence, watched

LOOK_TRIES = 3
LONGEST_PAUSE_SECONDS = 15.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
CHUNK_BYTES = 1 << 16
STALE_SECONDS = 3600.0
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Source:
    """A file on the Hub, what the user calls it, and what is known of it beforehand."""

    label: str
    repo: str
    revision: str
    file: str
    sha256: str | None = None
    size_bytes: int | None = None
    licence: str | None = None


def hub_constants() -> Any:
    """huggingface_hub.constants, where the HF_* variables were read when it was first imported."""
    from huggingface_hub import constants

    return constants


def file_url(source: Source) -> str:
    """The address of a file, at HF_ENDPOINT if that is set."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.repo, source.file, revision=source.revision)


def manual_place(source: Source) -> Path:
    """Where a file fetched by hand is found as if it had been downloaded."""
    folder = f"models--{source.repo.replace('/', '--')}"
    return Path(hub_constants().HF_HUB_CACHE) / folder / "snapshots" / source.revision / source.file


def silence_seconds() -> float:
    """How long nothing may happen: six times the longer of huggingface_hub's two timeouts, by default 60 s."""
    constants = hub_constants()
    return 6.0 * float(max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT))


@contextmanager
def quietly() -> Iterator[None]:
    """Keep huggingface_hub's own warnings about retries off the screen, unless HF_HUB_VERBOSITY asks for them.

    Downloads over plain HTTP also come in smaller parts than its 10 MiB, or there would be no progress to show.
    """
    from huggingface_hub import utils

    constants, logging = hub_constants(), cast(Any, utils.logging)
    level, chunk = logging.get_verbosity(), constants.DOWNLOAD_CHUNK_SIZE
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = chunk
        logging.set_verbosity(level)


def look(source: Source) -> Any:
    """What the Hub says of a file (its size, etag and commit), without fetching it. Raises DownloadError."""
    return bounded(source.label, file_url(source), lambda: _look(source))


def _look(source: Source) -> Any:
    from huggingface_hub import get_hf_file_metadata

    timeout = hub_constants().HF_HUB_ETAG_TIMEOUT
    for tries_left in reversed(range(LOOK_TRIES)):
        try:
            return get_hf_file_metadata(
                file_url(source), timeout=timeout, library_name="dreamsr", library_version=dreamsr.__version__
            )
        except Exception as error:
            pause = _pause(error)
            if not tries_left or pause is None or pause > LONGEST_PAUSE_SECONDS:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _pause(error: Exception) -> float | None:
    """Seconds after which a request may be tried again; None if that would be of no use."""
    if _is_transport(error):
        return 0.5
    if status_of(error) not in TRANSIENT:
        return None
    return retry_after(error) or 0.5


def retry_after(error: Exception) -> float | None:
    """The seconds that a server asks to wait, if it does."""
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After", "") if response is not None else ""
    return float(value) if value.isdigit() and len(value) < 7 else None


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an error of huggingface_hub."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _is_transport(error: BaseException) -> bool:
    # By name: huggingface_hub 1 speaks through httpx, 2 through httpx2, and either class means the same.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _is_timeout(error: BaseException) -> bool:
    return any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__)


def retrieve(
    source: Source, etag: str | None, size: int, on_progress: Callable[[int, int], None] | None, *, again: bool
) -> Path:
    """Download into huggingface_hub's cache; `again` replaces what lies there. Raises DownloadError."""
    from huggingface_hub import hf_hub_download

    arrived = Arrived()
    given_up = threading.Event()
    blobs = manual_place(source).parents[len(Path(source.file).parts) + 1] / "blobs"

    def work() -> Path:
        path = hf_hub_download(
            source.repo,
            source.file,
            revision=source.revision,
            force_download=again,
            library_name="dreamsr",
            library_version=dreamsr.__version__,
            tqdm_class=progress_class(arrived, given_up),
        )
        return Path(path)

    def signs() -> object:
        if on_progress is not None:
            on_progress(min(arrived.count, size), size)
        # Another process may be the one that downloads, while this one waits for its lock.
        return arrived.count, _incomplete(blobs)

    path = bounded(source.label, file_url(source), work, signs=signs, given_up=given_up)
    if on_progress is not None:
        on_progress(size, size)
    _remove_stale(blobs, etag)
    return path


class Arrived:
    """How many bytes have come, as the downloading thread tells."""

    def __init__(self) -> None:
        self.count = 0


def progress_class(arrived: Arrived, given_up: threading.Event) -> Any:
    """The class whose instances huggingface_hub tells of every part; it draws nothing."""
    from huggingface_hub import utils

    tqdm: Any = cast(Any, utils).tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            self.arrived = int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            if given_up.is_set():
                raise GivenUp
            self.arrived += int(n or 0)
            # Xet draws two bars for the same bytes, so they are not to be added up.
            arrived.count = max(arrived.count, self.arrived)
            return None

    return Bar


def _incomplete(blobs: Path) -> list[tuple[str, int]]:
    found = []
    with suppress(OSError):
        for entry in os.scandir(blobs):
            if entry.name.endswith(".incomplete"):
                with suppress(OSError):
                    found.append((entry.name, entry.stat().st_size))
    return sorted(found)


def _remove_stale(blobs: Path, etag: str | None) -> None:
    """Delete what killed downloads of this very file left behind; huggingface_hub never does."""
    with suppress(OSError):
        for path in blobs.glob(f"{etag}.*incomplete") if etag and etag.isalnum() else ():
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)


def bounded(
    label: str,
    url: str,
    work: Callable[[], Result],
    *,
    signs: Callable[[], object] = lambda: None,
    seconds: float | None = None,
    given_up: threading.Event | None = None,
) -> Result:
    """What `work` returns; whatever goes wrong in it, or takes too long, becomes a DownloadError."""
    try:
        allowed = seconds if seconds is not None else silence_seconds()
        return watched(work, signs=signs, silence_seconds=allowed, given_up=given_up or threading.Event())
    except Silence as silence:
        raise DownloadError(
            f"{label}: nothing came from {url} for {silence.seconds:.0f} s; the server or the line is too slow, "
            f"or another process holds the lock. Try again later, or set HF_ENDPOINT to a mirror{_mirror()}"
        ) from None
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(f"{label}: {explain(error, url)}") from error


def explain(error: BaseException, url: str) -> str:
    """In one line, what a failure of huggingface_hub means and what can be done."""
    from huggingface_hub import errors

    root = _root(error)
    status = status_of(root)
    if isinstance(root, errors.GatedRepoError) or status == 403:
        return f"{url} is for permitted users only; accept its terms on that site, then `hf auth login` or set HF_TOKEN"
    if isinstance(root, errors.RevisionNotFoundError):
        return f"{url}: the repository has no such revision; check what follows the @"
    if isinstance(root, errors.RemoteEntryNotFoundError):
        return f"{url}: the repository has no such file; check what follows the :"
    if isinstance(root, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"{url}: no such repository{_mirror()}, or a private one; check the name (a local folder of that name does "
            "not exist either), or `hf auth login` or set HF_TOKEN"
        )
    if status == 429:
        wait = retry_after(root) if isinstance(root, Exception) else None
        when = f"in {wait:.0f} s" if wait else "in a few minutes"
        return f"{url}: the server has had too many requests (429); try again {when}, a token in HF_TOKEN allows more"
    if status is not None:
        return f"{url}: the server failed ({status}); try again later, or set HF_ENDPOINT to a mirror{_mirror()}"
    if isinstance(root, errors.FileMetadataError):
        return f"{url} is not answered by a Hub{_mirror()}; check HF_ENDPOINT and the proxy settings"
    return _explain_local(root, url)


def _explain_local(root: BaseException, url: str) -> str:
    if _is_timeout(root):
        return f"{url}: no answer in time; check the connection, or set HF_ENDPOINT to a mirror{_mirror()}"
    if _is_transport(root):
        return f"{url} cannot be reached ({_first_line(root)}); check the connection and proxies{_mirror()}"
    cache = shown(Path(hub_constants().HF_HUB_CACHE))
    if isinstance(root, OSError) and root.errno in FULL_DISK:
        return f"the disk of {cache} is full; free some space or set HF_HOME to another disk"
    if isinstance(root, OSError) and root.errno is not None:
        return f"{cache} cannot be written ({root.strerror}); make it writable or set HF_HOME to another folder"
    if "Consistency check failed" in str(root):
        return f"{url} arrived incomplete; nothing was kept, try again"
    return f"{url} cannot be fetched ({type(root).__name__}: {_first_line(root)})"


def _root(error: BaseException) -> BaseException:
    """The failure behind huggingface_hub's general 'not found locally either'."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return shown(lines[0][:200]) if lines else type(error).__name__


def _mirror() -> str:
    """Names the variable where it was set: the cause may well be there."""
    return f" (HF_ENDPOINT is {os.environ['HF_ENDPOINT']})" if os.environ.get("HF_ENDPOINT") else ""
