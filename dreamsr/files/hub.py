"""Where weights come from: bundled, a local file or run, or the Hugging Face Hub, once.

Everything from the Hub goes through huggingface_hub and its cache, so HF_HOME, HF_HUB_CACHE, HF_TOKEN,
HF_HUB_OFFLINE, HF_ENDPOINT, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT and proxies mean here what they mean
there. What is bundled or cached is used without a word to the network. Neither torch nor huggingface_hub is
imported before it is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamsr.errors import DownloadError, WeightsError
from dreamsr.files.hub_access import Source, file_url, hub_constants, look, manual_place, quietly, retrieve
from dreamsr.files.picture import shown
from dreamsr.files.registry import (
    SHA256,
    WeightsEntry,
    bundled_file,
    describe_weights,
    is_weights_path,
    unknown_weights,
)

__all__ = [
    "OnNotice",
    "OnProgress",
    "Reference",
    "describe_weights",
    "local_copy",
    "parse_reference",
    "resolve_weights",
]

OnNotice = Callable[[str], None]
OnProgress = Callable[[int, int], None]
"""Bytes that have arrived, bytes in all."""

REFERENCE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,200}))?(?::(?P<file>[^\s:@]{1,500}))?",
    re.ASCII,
)
RUN_FILE = "model.safetensors"
HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class Reference:
    """`user/repo[@revision][:file]` on the Hub."""

    repo: str
    revision: str = "main"
    file: str = RUN_FILE


def resolve_weights(
    name: str, *, on_notice: OnNotice | None = None, on_progress: OnProgress | None = None, refresh: bool = False
) -> Path:
    """The local file that `name` stands for: a name of weights.toml, a file, a run's folder, or a Hub reference.

    Fetches it where it is neither bundled nor cached; `refresh` asks the Hub anew even so. Named weights are
    checked against their sha256 every time. Raises WeightsError, and DownloadError where fetching fails.
    """
    notice = on_notice or (lambda _: None)
    entry = describe_weights(name)
    if entry is not None:
        return _named(entry, notice, on_progress, refresh)
    local = local_file(name)
    if local is not None:
        return local
    reference = parse_reference(name)
    if reference is None:
        raise unknown_weights(name)
    return _obtain(_source(name, reference), notice, on_progress, refresh)


def local_copy(entry: WeightsEntry) -> Path | None:
    """Where the file of an entry lies already, bundled or cached, unchecked; never touches the network."""
    if entry.bundled:
        return bundled_file(entry.name) if bundled_file(entry.name).is_file() else None
    return _cached(_entry_source(entry)) if entry.published else None


def parse_reference(name: str) -> Reference | None:
    """Read `user/repo[@revision][:file]`; None if `name` is nothing like it. Raises WeightsError for other files."""
    match = REFERENCE.fullmatch(name)
    if match is None:
        return None
    found = Reference(match["repo"], match["revision"] or "main", match["file"] or RUN_FILE)
    if ".." in found.repo or "--" in found.repo or ".." in found.revision or found.revision.startswith(("/", "-")):
        return None
    if not is_weights_path(found.file):
        raise WeightsError(f"{name}: {found.file} is not a .safetensors file; other formats are not read")
    return found


def file_sha256(path: Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _named(entry: WeightsEntry, notice: OnNotice, on_progress: OnProgress | None, refresh: bool) -> Path:
    if entry.bundled:
        path = bundled_file(entry.name)
        if not path.is_file() or file_sha256(path) != entry.sha256:
            state = "damaged" if path.is_file() else "missing"
            raise WeightsError(f"{path}: the bundled weights {entry.name} are {state}; install dreamsr again")
        return path
    if not entry.published:
        raise DownloadError(
            f"{entry.name} cannot be downloaded yet: it is listed in weights.toml, but no Hub repository holds it; "
            "give a .safetensors file or a run's folder, or see `dreamsr weights list` for weights that are available"
        )
    return _obtain(_entry_source(entry), notice, on_progress, refresh)


def local_file(name: str) -> Path | None:
    """A file or folder of that name; None where there is none and the name may still be a Hub reference."""
    path = Path(name).expanduser()
    if path.is_dir():
        inside = path / RUN_FILE
        if inside.is_file():
            return inside
        raise WeightsError(f"{shown(path)}: the folder holds no {RUN_FILE}; `dreamsr train` writes one at --save-every")
    if path.exists():
        if path.suffix != ".safetensors":
            raise WeightsError(
                f"{shown(path)}: not a .safetensors file; other formats, pickles above all, are not read"
            )
        return path
    looks_local = (
        name.startswith((".", "/", "~")) or "\\" in name or (name.endswith(".safetensors") and ":" not in name)
    )
    if looks_local:
        raise WeightsError(f"{shown(path)}: no such file or folder")
    return None


def _entry_source(entry: WeightsEntry) -> Source:
    return Source(entry.name, entry.repo, entry.revision, entry.file, entry.sha256, entry.size_bytes, entry.licence)


def _source(name: str, reference: Reference) -> Source:
    return Source(name, reference.repo, reference.revision, reference.file)


def _cached(source: Source) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _obtain(source: Source, notice: OnNotice, on_progress: OnProgress | None, refresh: bool) -> Path:
    """The cached file if it is whole, else the Hub's."""
    cached = _cached(source)
    if cached is not None and source.sha256 is not None and file_sha256(cached) != source.sha256:
        notice(f"{source.label}: the cached copy is damaged and was deleted")
        _discard(cached)
        cached = None
    if cached is not None and not (refresh and source.sha256 is None):
        return cached
    if hub_constants().HF_HUB_OFFLINE:
        raise DownloadError(_offline(source))
    return _fetch(source, notice, on_progress)


def _offline(source: Source) -> str:
    facts = [_megabytes(source.size_bytes)] if source.size_bytes else []
    facts += [f"sha256 {source.sha256}"] if source.sha256 else []
    about = f" ({', '.join(facts)})" if facts else ""
    return (
        f"{source.label} is not on this machine and HF_HUB_OFFLINE forbids to fetch it; get {file_url(source)}{about} "
        f"elsewhere and save it as {manual_place(source)}, or give its place with --weights"
    )


def _fetch(source: Source, notice: OnNotice, on_progress: OnProgress | None) -> Path:
    """Download, check, and once more if the bytes are wrong."""
    with quietly():
        metadata = look(source)
        size = _checked_size(source, metadata)
        if metadata.commit_hash and _cached(replace(source, revision=metadata.commit_hash)):
            notice(f"{source.label}: up to date")
        else:
            licence = f", licence {source.licence}" if source.licence else ""
            notice(f"{source.label}: fetching {_megabytes(size)} from {file_url(source)}{licence}")
            _check_space(source, size)
        expected = source.sha256 or (metadata.etag if SHA256.fullmatch(metadata.etag or "") else None)
        for last in (False, True):
            path = retrieve(source, metadata.etag, size, on_progress, again=last)
            found = file_sha256(path)
            if expected is None or found == expected:
                return path
            _discard(path)
            if not last:
                notice(f"{source.label}: wrong bytes arrived (sha256 {found[:12]}); deleted, trying once more")
    raise DownloadError(
        f"{source.label}: {file_url(source)} twice gave bytes of sha256 {found}, not {expected}; both were deleted. "
        "The repository, or a mirror or proxy on the way, serves something else: do not use it, and report this"
    )


def _checked_size(source: Source, metadata: Any) -> int:
    size = metadata.size
    if size is None or size <= 0:
        raise DownloadError(f"{source.label}: {file_url(source)} does not tell its size; it is not a weights file")
    if source.size_bytes is not None and size != source.size_bytes:
        raise DownloadError(
            f"{source.label}: {file_url(source)} has {size} bytes, not the {source.size_bytes} of weights.toml; "
            "it was not downloaded. Update dreamsr, or check HF_ENDPOINT"
        )
    return int(size)


def _check_space(source: Source, size: int) -> None:
    cache = Path(hub_constants().HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise DownloadError(
            f"{source.label} needs {_megabytes(size)}, but {shown(cache)} has {_megabytes(free)} free; "
            "free some space or set HF_HOME to another disk"
        )


def _discard(path: Path) -> None:
    """Delete a cached file: its name in the snapshot and what that leads to, but nothing outside the cache."""
    cache = Path(hub_constants().HF_HUB_CACHE).resolve()
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))  # noqa: PTH115 - one link at a time
    for step in chain:
        if step.parent.resolve().is_relative_to(cache):
            step.unlink(missing_ok=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
