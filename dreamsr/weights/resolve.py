"""Where weights come from: bundled, a local file or run, or the Hugging Face Hub, once.

Everything from the Hub goes through huggingface_hub's session into its cache, so HF_HOME, HF_HUB_CACHE, HF_TOKEN,
HF_HUB_OFFLINE, HF_ENDPOINT, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT and proxies mean here what they mean
there. What is bundled or cached is used without a word to the network. Neither torch nor huggingface_hub is
imported before it is needed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dreamsr.disk import file_sha256, write_bytes_atomically
from dreamsr.errors import DownloadError, WeightsError, printable
from dreamsr.weights.fetch import MAX_BYTES, OnBytes, Told, look, retrieve
from dreamsr.weights.registry import (
    COMMIT,
    WeightsEntry,
    bundled_file,
    describe_weights,
    is_weights_path,
    unknown_weights,
)
from dreamsr.weights.transfer import (
    HubFile,
    cache_folder,
    explained,
    file_url,
    hub_constants,
    manual_place,
    mirror_hint,
    quietly,
    repository_folder,
)

__all__ = [
    "OnBytes",
    "OnNotice",
    "Reference",
    "describe_weights",
    "local_copy",
    "obtain",
    "parse_reference",
    "resolve_weights",
]

OnNotice = Callable[[str], None]

REFERENCE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,200}))?(?::(?P<file>[^\s:@]{1,500}))?",
    re.ASCII,
)
RUN_FILE = "model.safetensors"


@dataclass(frozen=True)
class Reference:
    """`user/repo[@revision][:file]` on the Hub."""

    repo: str
    revision: str = "main"
    file: str = RUN_FILE


def resolve_weights(
    name: str, *, on_notice: OnNotice | None = None, on_progress: OnBytes | None = None, refresh: bool = False
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
    return obtain(_source(name, reference), notice, on_progress, refresh)


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


def _named(entry: WeightsEntry, notice: OnNotice, on_progress: OnBytes | None, refresh: bool) -> Path:
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
    return obtain(_entry_source(entry), notice, on_progress, refresh)


def local_file(name: str) -> Path | None:
    """A file or folder of that name; None where there is none and the name may still be a Hub reference."""
    path = Path(name).expanduser()
    if path.is_dir():
        inside = path / RUN_FILE
        if inside.is_file():
            return inside
        raise WeightsError(
            f"{printable(path)}: the folder holds no {RUN_FILE}; `dreamsr train` writes one at `save_every`"
        )
    if path.exists():
        if path.suffix != ".safetensors":
            raise WeightsError(
                f"{printable(path)}: not a .safetensors file; other formats, pickles above all, are not read"
            )
        return path
    looks_local = (
        name.startswith((".", "/", "~")) or "\\" in name or (name.endswith(".safetensors") and ":" not in name)
    )
    if looks_local:
        raise WeightsError(f"{printable(path)}: no such file or folder")
    return None


def _entry_source(entry: WeightsEntry) -> HubFile:
    return HubFile(entry.name, entry.repo, entry.revision, entry.file, entry.sha256, entry.size_bytes, entry.licence)


def _source(name: str, reference: Reference) -> HubFile:
    return HubFile(name, reference.repo, reference.revision, reference.file)


def _cached(source: HubFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, cache_dir=source.cache, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def obtain(
    source: HubFile, notice: OnNotice, on_progress: OnBytes | None, refresh: bool, *, anew: bool = False
) -> Path:
    """The cached file if it is whole, else the Hub's; `anew` fetches it even so. Raises DownloadError."""
    cached = _cached(source)
    if cached is not None and source.sha256 is not None and file_sha256(cached) != source.sha256:
        notice(f"{source.label}: the cached copy is damaged and was deleted")
        _discard(cached, cache_folder(source))
        cached = None
    if cached is not None and not anew and not (refresh and source.sha256 is None):
        return cached
    if hub_constants().HF_HUB_OFFLINE:
        raise DownloadError(_offline(source))
    return _fetch(source, notice, on_progress, anew=anew)


def _offline(source: HubFile) -> str:
    facts = [_megabytes(source.size_bytes)] if source.size_bytes else []
    facts += [f"sha256 {source.sha256}"] if source.sha256 else []
    about = f" ({', '.join(facts)})" if facts else ""
    return (
        f"{source.label} is not on this machine and HF_HUB_OFFLINE forbids to fetch it; get {file_url(source)}{about} "
        f"elsewhere and save it as {manual_place(source)}, or give its place with `weights`"
    )


def _fetch(source: HubFile, notice: OnNotice, on_progress: OnBytes | None, *, anew: bool) -> Path:
    """Look at the file and download it, unless the commit that a branch stands for is here already."""
    with quietly():
        told = look(source)
        size = _checked_size(source, told)
        commit = source.revision if COMMIT.fullmatch(source.revision) else told.commit
        if commit is None:
            raise DownloadError(
                f"{source.label}: {file_url(source)} is not answered by a Hub{mirror_hint()}; check HF_ENDPOINT and "
                "the proxy settings"
            )
        pinned = replace(source, revision=commit)
        path = None if anew else _cached(pinned)
        if path is not None:
            notice(f"{source.label}: up to date")
        else:
            licence = f", licence {source.licence}" if source.licence else ""
            notice(f"{source.label}: fetching {_megabytes(size)} from {file_url(source)}{licence}")
            _check_space(source, size)
            path = retrieve(pinned, told, source.sha256 or told.sha256, on_progress, notice)
        if commit != source.revision:
            _remember(source, commit)
    return path


def _remember(source: HubFile, commit: str) -> None:
    """Note which commit a branch stands for, where huggingface_hub looks for it."""
    note = repository_folder(source) / "refs" / source.revision
    with explained(source.label, file_url(source)):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(note, commit.encode())


def _checked_size(source: HubFile, told: Told) -> int:
    size = told.size
    if not size:
        raise DownloadError(f"{source.label}: {file_url(source)} does not tell its size; it is not a weights file")
    if source.size_bytes is not None and size != source.size_bytes:
        raise DownloadError(
            f"{source.label}: {file_url(source)} has {size} bytes, not the {source.size_bytes} of weights.toml; "
            "it was not downloaded. Update dreamsr, or check HF_ENDPOINT"
        )
    if size > MAX_BYTES:
        raise DownloadError(
            f"{source.label}: {file_url(source)} has {size} bytes, more than the {MAX_BYTES} that weights may have; "
            "it was not downloaded"
        )
    return size


def _check_space(source: HubFile, size: int) -> None:
    cache = cache_folder(source)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise DownloadError(
            f"{source.label} needs {_megabytes(size)}, but {printable(cache)} has {_megabytes(free)} free; "
            "free some space or set HF_HOME to another disk"
        )


def _discard(path: Path, folder: Path) -> None:
    """Delete a cached file: its name in the snapshot and what that leads to, but nothing outside the cache."""
    cache = folder.resolve()
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))  # noqa: PTH115 - one link at a time
    for step in chain:
        if step.parent.resolve().is_relative_to(cache):
            step.unlink(missing_ok=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
