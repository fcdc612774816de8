"""Fetching one file from the Hub: looked at, downloaded, checked, and only then given its name.

The requests are huggingface_hub's own (session, headers, proxies, offline mode). Nothing that a server says becomes
a path: a file is kept as `snapshots/COMMIT/FILE` in the Hub's cache, where FILE was asked for and COMMIT is 40
hexadecimal digits. While it arrives it lies in `blobs`, under a name that is a hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import dreamsr
from dreamsr.disk import file_sha256
from dreamsr.errors import DownloadError, printable
from dreamsr.weights.registry import COMMIT, SHA256
from dreamsr.weights.token import redirected, token_for
from dreamsr.weights.transfer import (
    HubFile,
    Silence,
    cache_folder,
    explained,
    file_url,
    hub_constants,
    is_transport,
    manual_place,
    mirror_hint,
    repository_folder,
    retried,
    silence_seconds,
)

LOOK_TRIES, DOWNLOAD_TRIES = 3, 5
MAX_REDIRECTS = 10
MAX_BYTES = 8_000_000_000
CHUNK_BYTES = 1 << 16
SIZE, ETAG, REPO_COMMIT = "X-Linked-Size", "X-Linked-Etag", "X-Repo-Commit"

OnBytes = Callable[[int, int], None]
"""Bytes that have arrived, bytes in all."""


@dataclass(frozen=True)
class Told:
    """What a server says of a file; what has not the form it must have is None, a size out of bounds too."""

    size: int | None
    sha256: str | None
    commit: str | None
    location: str


class _BadStatus(Exception):
    """A status that is no success; huggingface_hub's errors carry `response` likewise."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


def look(source: HubFile) -> Told:
    """What the Hub says of a file, without fetching it. Raises DownloadError."""
    with explained(source.label, file_url(source)):
        return retried(lambda: _look(source), tries=LOOK_TRIES)


def _look(source: HubFile) -> Told:
    from huggingface_hub import utils

    commit = None
    timeout = hub_constants().HF_HUB_ETAG_TIMEOUT
    url = file_url(source)
    for _ in range(MAX_REDIRECTS):
        with _request("HEAD", url, source, timeout=timeout) as response:
            response.read()  # a HEAD has no body; the errors' texts want it read
            cast(Any, utils).hf_raise_for_status(response)
            headers = response.headers
            commit = commit or _matching(COMMIT, headers.get(REPO_COMMIT))
            location = headers.get("Location") if response.is_redirect else None
            url = redirected(url, location) if location else url
            if location is None or SIZE in headers:
                size = headers.get(SIZE) or (None if location else headers.get("Content-Length"))
                return Told(_size(size), _matching(SHA256, headers.get(ETAG) or headers.get("ETag")), commit, url)
    raise DownloadError(f"{file_url(source)} redirects more than {MAX_REDIRECTS} times; check HF_ENDPOINT")


def _matching(pattern: Any, text: str | None) -> str | None:
    plain = (text or "").removeprefix("W/").strip('"')
    return plain if pattern.fullmatch(plain) else None


def _size(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


@contextmanager
def _request(
    method: str, url: str, source: HubFile, *, timeout: float, more: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """One request with huggingface_hub's session; no redirect is followed, and no token sent where it may not go."""
    from huggingface_hub import get_session, utils

    headers = cast(Any, utils).build_hf_headers(
        token=token_for(url, source.token),
        library_name="dreamsr",
        library_version=dreamsr.__version__,
        headers={"Accept-Encoding": "identity", **(more or {})},  # sizes are those of the file
    )
    session: Any = get_session()
    with session.stream(method, url, headers=headers, follow_redirects=False, timeout=timeout) as response:
        yield response


def retrieve(
    source: HubFile, told: Told, expected: str | None, on_progress: OnBytes | None, on_notice: Callable[[str], None]
) -> Path:
    """Download a file of `told.size` bytes, once more if they are wrong, and return where it is kept.

    `source.revision` must be a commit; `expected` is its sha256 where that is known. Raises DownloadError, and then
    nothing has changed but for what arrived so far of an interrupted download, which the next one continues.
    """
    place = manual_place(source)
    key = expected or hashlib.sha256(f"{source.revision}/{source.file}".encode()).hexdigest()
    partial = repository_folder(source) / "blobs" / f"{key}.dreamsr.incomplete"
    lock = cache_folder(source) / ".locks" / repository_folder(source).name / f"{key}.lock"
    with explained(source.label, file_url(source)):
        for folder in (partial.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(lock, partial):
            # Another process may have been faster, while this one waited.
            if expected is None or not place.is_file() or file_sha256(place) != expected:
                try:
                    _download_right(source, told, partial, expected, on_progress, on_notice)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    partial.replace(place)
                except BaseException as error:
                    if expected is None or (isinstance(error, Exception) and not is_transport(error)):
                        partial.unlink(missing_ok=True)
                    raise
    if on_progress is not None and told.size:
        on_progress(told.size, told.size)
    return place


@contextmanager
def _locked(lock: Path, growing: Path) -> Iterator[None]:
    """Hold a lock. Raises Silence if another process has it and `growing` has not grown for too long."""
    import filelock

    held = filelock.FileLock(lock)
    before = -2
    while not held.is_locked:
        size = growing.stat().st_size if growing.exists() else -1
        if size == before:
            raise Silence
        before = size
        try:
            held.acquire(timeout=silence_seconds())
        except filelock.Timeout:
            continue
    try:
        yield
    finally:
        held.release()


def _download_right(
    source: HubFile,
    told: Told,
    partial: Path,
    expected: str | None,
    on_progress: OnBytes | None,
    on_notice: Callable[[str], None],
) -> None:
    """Leave the file, complete and checked, at `partial`."""
    url = file_url(source)
    if expected is None:  # without a sha256 nothing shows whether what lies there belongs to it
        partial.unlink(missing_ok=True)
    for last in (False, True):
        _download(source, told, partial, on_progress)
        found = file_sha256(partial)
        if expected is None or found == expected:
            _require_safetensors(partial, source)
            return
        partial.unlink()
        if not last:
            on_notice(f"{source.label}: wrong bytes arrived (sha256 {found[:12]}); deleted, trying once more")
    raise DownloadError(
        f"{source.label}: {url} twice gave bytes of sha256 {found}, not {expected}; both were deleted. "
        "The repository, or a mirror or proxy on the way, serves something else: do not use it, and report this"
    )


def _require_safetensors(path: Path, source: HubFile) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise DownloadError(
            f"{source.label}: {file_url(source)} gave no sound safetensors file ({printable(str(error)[:200])}); "
            f"nothing was kept. A login page may stand between, or the repository is damaged{mirror_hint()}"
        ) from None


def _download(source: HubFile, told: Told, partial: Path, on_progress: OnBytes | None) -> None:
    """Fetch what is still missing at `partial`, over several connections if need be."""
    size = told.size or 0
    with partial.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
            file.seek(0)
        if file.tell() < size:
            retried(lambda: _receive(source, told.location, file, size, on_progress), tries=DOWNLOAD_TRIES)
        file.flush()
        os.fsync(file.fileno())


def _receive(source: HubFile, url: str, file: BinaryIO, size: int, on_progress: OnBytes | None) -> None:
    """Append bytes until there are `size`; never more, whatever comes. Raises DownloadError for another number."""
    timeout = hub_constants().HF_HUB_DOWNLOAD_TIMEOUT
    done = file.tell()
    more = {"Range": f"bytes={done}-"} if done else None
    for _ in range(MAX_REDIRECTS):
        with _request("GET", url, source, timeout=timeout, more=more) as response:
            if response.is_redirect and "Location" in response.headers:
                url = redirected(url, response.headers["Location"])
                continue
            if response.status_code not in (200, 206):
                raise _BadStatus(response)
            if done and response.status_code == 200:  # the server does not know ranges
                file.truncate(0)
                file.seek(0)
            for part in response.iter_raw(CHUNK_BYTES):
                if file.tell() + len(part) > size:
                    raise DownloadError(
                        f"{source.label}: {file_url(source)} sends more than the {size} bytes that were announced; "
                        f"nothing was kept. Do not use it{mirror_hint()}"
                    )
                file.write(part)
                if on_progress is not None:
                    on_progress(file.tell(), size)
        if file.tell() != size:
            raise DownloadError(f"{source.label}: {file_url(source)} arrived incomplete; nothing was kept, try again")
        return
    raise DownloadError(f"{source.label}: {file_url(source)} redirects more than {MAX_REDIRECTS} times; try again")
