"""HTML pages from the templates that stand beside the code, for all rooms above."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: Path) -> Template:
    """The template in a file. Whatever it is given is escaped; `base64` makes a text of bytes."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.from_string(path.read_text(encoding="utf-8"))


def encoded(text: str) -> bytes:
    """A page as bytes; what of a file name is no text is shown by its number."""
    return text.encode("utf-8", "backslashreplace")
