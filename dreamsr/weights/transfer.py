"""What is asked of the Hub, where it is kept, and errors that one can act on."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from dreamsr.errors import DownloadError, DreamsrError, printable
from dreamsr.weights.token import TOKEN_RULE, may_have_token

LONGEST_PAUSE_SECONDS = 15.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Result = TypeVar("Result")


class Silence(Exception):
    """Another process held a lock and got nothing done for `silence_seconds()`."""


@dataclass(frozen=True)
class HubFile:
    """A file on the Hub, what the user calls it, and what is known of it beforehand."""

    label: str
    repo: str
    revision: str
    file: str
    sha256: str | None = None
    size_bytes: int | None = None
    licence: str | None = None
    cache: Path | None = None  # in place of HF_HUB_CACHE
    token: str | bool | None = None  # as huggingface_hub takes it; None for the user's own


def hub_constants() -> Any:
    """huggingface_hub.constants, where the HF_* variables were read when it was first imported."""
    from huggingface_hub import constants

    return constants


def file_url(source: HubFile) -> str:
    """The address of a file, at HF_ENDPOINT if that is set."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.repo, source.file, revision=source.revision)


def cache_folder(source: HubFile) -> Path:
    """The Hub's cache: HF_HUB_CACHE, unless the source has its own."""
    return source.cache or Path(hub_constants().HF_HUB_CACHE)


def repository_folder(source: HubFile) -> Path:
    """The folder of a repository in the Hub's cache."""
    return cache_folder(source) / f"models--{source.repo.replace('/', '--')}"


def manual_place(source: HubFile) -> Path:
    """Where a file is kept, and found if it was fetched by hand."""
    return repository_folder(source) / "snapshots" / source.revision / source.file


def silence_seconds() -> float:
    """How long others may be silent: six times the longer of huggingface_hub's two timeouts, by default 60 s."""
    constants = hub_constants()
    return 6.0 * float(max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT))


@contextmanager
def quietly() -> Iterator[None]:
    """Keep huggingface_hub's own warnings about retries off the screen, unless HF_HUB_VERBOSITY asks for them."""
    from huggingface_hub import utils

    logging = cast(Any, utils.logging)
    level = logging.get_verbosity()
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def retried(work: Callable[[], Result], *, tries: int) -> Result:
    """What `work` returns; what may pass (a broken line, a busy server) is tried `tries` times in all."""
    for tries_left in reversed(range(tries)):
        try:
            return work()
        except Exception as error:
            pause = _pause(error)
            if not tries_left or pause is None or pause > LONGEST_PAUSE_SECONDS:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _pause(error: Exception) -> float | None:
    """Seconds after which a request may be tried again; None if that would be of no use."""
    if is_transport(error):
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


def is_transport(error: BaseException) -> bool:
    # By name: huggingface_hub 1 speaks through httpx, 2 through httpx2, and either class means the same.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _is_timeout(error: BaseException) -> bool:
    return any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__)


@contextmanager
def explained(label: str, url: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a DownloadError of one line."""
    try:
        yield
    except DreamsrError:
        raise
    except Silence:
        raise DownloadError(
            f"{label}: nothing came from {url} for {silence_seconds():.0f} s; the server or the line is too slow, "
            f"or another process holds the lock. Try again later, or set HF_ENDPOINT to a mirror{mirror_hint()}"
        ) from None
    except Exception as error:
        raise DownloadError(f"{label}: {explain(error, url)}") from error


def explain(error: BaseException, url: str) -> str:
    """In one line, what a failure of huggingface_hub means and what can be done."""
    from huggingface_hub import errors

    root = _root(error)
    status = status_of(root)
    if isinstance(root, errors.GatedRepoError) or status == 403:
        return (
            f"{url} is for permitted users only; accept its terms on that site, then `hf auth login` or set HF_TOKEN"
            f"{_withheld(url)}"
        )
    if isinstance(root, errors.RevisionNotFoundError):
        return f"{url}: the repository has no such revision; check what follows the @"
    if isinstance(root, errors.RemoteEntryNotFoundError):
        return f"{url}: the repository has no such file; check what follows the :"
    if isinstance(root, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"{url}: no such repository{mirror_hint()}, or a private one; check the name (a local folder of that name "
            f"does not exist either), or `hf auth login` or set HF_TOKEN{_withheld(url)}"
        )
    if status == 429:
        wait = retry_after(root) if isinstance(root, Exception) else None
        when = f"in {wait:.0f} s" if wait else "in a few minutes"
        return f"{url}: the server has had too many requests (429); try again {when}, a token in HF_TOKEN allows more"
    if status is not None:
        return f"{url}: the server failed ({status}); try again later, or set HF_ENDPOINT to a mirror{mirror_hint()}"
    return _explain_local(root, url)


def _explain_local(root: BaseException, url: str) -> str:
    if _is_timeout(root):
        return f"{url}: no answer in time; check the connection, or set HF_ENDPOINT to a mirror{mirror_hint()}"
    if is_transport(root):
        return f"{url} cannot be reached ({_first_line(root)}); check the connection and proxies{mirror_hint()}"
    cache = printable(Path(hub_constants().HF_HUB_CACHE))
    if isinstance(root, OSError) and root.errno in FULL_DISK:
        return f"the disk of {cache} is full; free some space or set HF_HOME to another disk"
    if isinstance(root, OSError) and root.errno is not None:
        return f"{cache} cannot be written ({root.strerror}); make it writable or set HF_HOME to another folder"
    return f"{url} cannot be fetched ({type(root).__name__}: {_first_line(root)})"


def _root(error: BaseException) -> BaseException:
    """The failure behind huggingface_hub's general 'not found locally either'."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0][:200]) if lines else type(error).__name__


def _withheld(url: str) -> str:
    """Says so where there is a token that was not sent."""
    from huggingface_hub import get_token

    return "" if may_have_token(url) or get_token() is None else f"; {TOKEN_RULE}"


def mirror_hint() -> str:
    """Names the variable where it was set: the cause may well be there."""
    return f" (HF_ENDPOINT is {os.environ['HF_ENDPOINT']})" if os.environ.get("HF_ENDPOINT") else ""
