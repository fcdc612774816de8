"""Who may see the user's token, and which redirects are followed."""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

from dreamsr.errors import DownloadError, printable

HUB = "https://huggingface.co"
OPT_IN = "DREAMSR_SEND_TOKEN"
TOKEN_RULE = f"the token was not sent: it goes to {HUB} alone; {OPT_IN}=1 sends it to HF_ENDPOINT too, never over http"
PORTS = {"https": 443, "http": 80}


def may_have_token(url: str) -> bool:
    """Whether the token may go there: only to the endpoint, and if that is not the Hub, only when opted in.

    Never over http, except on this very machine.
    """
    from huggingface_hub import constants

    opted_in = os.environ.get(OPT_IN, "").upper() in ("1", "ON", "YES", "TRUE")
    if not _is_safe(url) or _origin(url) != _origin(constants.ENDPOINT):
        return False
    return opted_in or _origin(url) == _origin(HUB)


def token_for(url: str, token: str | bool | None = None) -> str | bool | None:
    """The `token` for huggingface_hub; False, which means none, where it may not go."""
    return token if may_have_token(url) else False


def redirected(url: str, location: str) -> str:
    """Where a redirect leads. Raises DownloadError if it leaves https, this machine, or the web."""
    try:
        target = urljoin(url, location)
        allowed = urlsplit(target).scheme in PORTS and bool(_origin(target)[1])
    except ValueError:
        target, allowed = location, False
    if not allowed or (_is_safe(url) and not _is_safe(target)) or (_scheme(url), _scheme(target)) == ("https", "http"):
        raise DownloadError(
            f"{url} leads to {printable(target[:200])}, which is not safe to follow; nothing was fetched. "
            "Check HF_ENDPOINT and the proxy settings"
        )
    return target


def _scheme(url: str) -> str:
    return urlsplit(url).scheme


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can read or change what is sent: https, or a server on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname:
        with suppress(ValueError):
            return ipaddress.ip_address(parts.hostname).is_loopback
        return parts.hostname == "localhost"
    return parts.scheme == "https"
