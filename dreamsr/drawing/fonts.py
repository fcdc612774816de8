"""The fonts with which drawn training pictures are lettered: of free licences, by name, where this machine has them."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

SYSTEM_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
OTHER_FOLDERS = {"darwin": ("/Library/Fonts", "~/Library/Fonts"), "win32": (r"C:\Windows\Fonts",)}
FREE = re.compile(
    r"(DejaVu(Sans|Serif|SansMono|SansCondensed|SerifCondensed)|Liberation(Sans|Serif|Mono|SansNarrow)"
    r"|Noto(Sans|Serif|SansMono|SansDisplay|SerifDisplay|Mono)|ComicNeue|Hack|Lato|Roboto|OpenSans|Ubuntu(Mono)?"
    r"|Fira(Sans|Mono|Code)|Inconsolata|Carlito|Caladea|Cantarell|Gelasio|Source(Sans|Code|Serif)\w*)"
    r"(-(Regular|Roman|Bold|Italic|BoldItalic|Oblique|BoldOblique|Light|Medium))?\.(ttf|otf)"
)
"""Families of Latin letters under the OFL, Apache, Bitstream Vera or Ubuntu licence."""
MANY_SCRIPTS = ("DejaVu", "Liberation", "NotoSans-", "NotoSerif-")
BUNDLED = "Pillow"


@dataclass(frozen=True)
class Font:
    """A font file, or Pillow's own font where `path` is None; `name` is the file's without its ending."""

    name: str
    path: str | None

    @property
    def even(self) -> bool:
        """All letters of one width."""
        return "Mono" in self.name or self.name.startswith(("Hack", "Inconsolata", "FiraCode", "SourceCode"))

    @property
    def comic(self) -> bool:
        return self.name.startswith("Comic")

    @property
    def many_scripts(self) -> bool:
        """Has Greek and Cyrillic letters."""
        return self.name.startswith(MANY_SCRIPTS)


def found_fonts() -> tuple[Font, ...]:
    """All usable fonts, sorted by name, each name once. Pillow's own is always there, so it is never empty."""
    found: dict[str, Font] = {BUNDLED: Font(BUNDLED, None)}
    for folder in _folders():
        for path in sorted(path for path in folder.rglob("*") if FREE.fullmatch(path.name)):
            found.setdefault(path.stem, Font(path.stem, str(path)))
    return tuple(found[name] for name in sorted(found))


@lru_cache(maxsize=1024)
def sized(font: Font, size_px: int) -> ImageFont.FreeTypeFont:
    """`font` at a size, without ligatures or reordering, which not every machine can do."""
    if font.path is None:
        own = ImageFont.load_default(size_px)
        if not isinstance(own, ImageFont.FreeTypeFont):
            raise RuntimeError("Pillow was built without FreeType")
        return own
    return ImageFont.truetype(font.path, size_px, layout_engine=ImageFont.Layout.BASIC)


def _folders() -> list[Path]:
    """Those of the system, and that of matplotlib, which brings DejaVu."""
    named = [*SYSTEM_FOLDERS, *OTHER_FOLDERS.get(sys.platform, ())]
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        named.append(os.path.join(os.path.dirname(spec.origin), "mpl-data", "fonts"))  # noqa: PTH118, PTH120
    return [folder for folder in (Path(name).expanduser() for name in named) if folder.is_dir()]
