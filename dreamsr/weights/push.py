"""Writing a model repository on the Hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dreamsr
from dreamsr.errors import DownloadError, OutputError
from dreamsr.weights.registry import REPO
from dreamsr.weights.token import TOKEN_RULE, may_have_token, token_for
from dreamsr.weights.transfer import explained, hub_constants, quietly, silence_seconds


def require_access(repo: str) -> None:
    """Raise OutputError for what can be known to fail before any work: a wrong name, offline, no token."""
    from huggingface_hub import get_token

    url = f"{hub_constants().ENDPOINT}/{repo}"
    if not REPO.fullmatch(repo):
        raise OutputError(f"{repo!r} cannot be a repository; it must be user/repo")
    if hub_constants().HF_HUB_OFFLINE:
        raise OutputError(f"{url} cannot be written while HF_HUB_OFFLINE is set; unset it and try again")
    if get_token() is None:
        raise OutputError(f"{url} cannot be written without a token; `hf auth login` or set HF_TOKEN")
    if not may_have_token(url):
        raise OutputError(f"{url} cannot be written; {TOKEN_RULE}")


def upload(repo: str, files: Mapping[str, bytes], *, private: bool, message: str) -> str:
    """Create `repo` if need be and commit `files` (path -> content); returns the commit, 40 hexadecimal digits.

    Raises OutputError: what `require_access` finds, no right to write, a public repository where a private one
    was asked for, a Hub that fails or stays silent.
    """
    require_access(repo)
    url = f"{hub_constants().ENDPOINT}/{repo}"
    try:
        with quietly(), explained(repo, url), _timeout(silence_seconds()):
            return _commit(repo, files, private, message)
    except DownloadError as error:
        raise OutputError(f"{error}; nothing was published") from None


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Bound every wait of huggingface_hub's session, which itself waits forever."""
    from huggingface_hub import get_session

    session: Any = get_session()
    before = session.timeout
    session.timeout = seconds
    try:
        yield
    finally:
        session.timeout = before


def _commit(repo: str, files: Mapping[str, bytes], private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Any = HfApi(
        token=token_for(hub_constants().ENDPOINT), library_name="dreamsr", library_version=dreamsr.__version__
    )
    api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.repo_info(repo).private:
        raise DownloadError(f"{repo} exists and is public, but `private` was given; choose another name")
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    return str(api.create_commit(repo, operations, commit_message=message).oid)
