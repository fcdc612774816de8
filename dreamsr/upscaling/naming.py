"""Where results go: beside the input, into a folder, to one file, by a template, or to standard output."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dreamsr.errors import UsageError, printable
from dreamsr.folders import ENDINGS, STREAM, Source, existing_folder, exists, identity, is_folder
from dreamsr.outputs import free_name
from dreamsr.pictures.picture import FORMATS, format_for

PlaceKind = Literal["beside", "folder", "file", "template", "stream"]
FIELD = re.compile(r"\{([^{}]*)\}")
FIELDS = ("stem", "ext", "scale", "width", "height", "folder", "tree")
FORMAT_NAMES = {"jpg": "JPEG", "tif": "TIFF"} | {name.lower(): name for name in FORMATS}


@dataclass(frozen=True)
class Destination:
    """What `output` means. `text` is a path or a template, empty beside the input; a template may lie in `folder`."""

    place: PlaceKind
    text: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Naming:
    """What a result's name is made from. Sizes in pixels of the result; `scale` as text."""

    source: Source
    format: str
    scale: str
    width: int
    height: int
    by_scale: bool
    stem: str = ""

    @property
    def source_ending(self) -> str:
        """The input's ending without its dot, "" where it has none."""
        return self.source.path.suffix.lstrip(".")

    @property
    def ending(self) -> str:
        """The input's ending where that names the format, else the format's first."""
        own = self.source.path.suffix
        return (own if own.lower() in FORMATS[self.format] else FORMATS[self.format][0]).lstrip(".")


def parse_format(name: str | None) -> str | None:
    """A key of FORMATS from what was typed. Raises UsageError."""
    if name is None:
        return None
    found = FORMAT_NAMES.get(name.lower().lstrip("."))
    if found not in FORMATS:
        raise UsageError(f"`format` is {printable(name)}, but it must be one of {', '.join(sorted(FORMAT_NAMES))}")
    return found


def parse_destination(text: str | None, sources: Sequence[Source]) -> Destination:
    """Raises UsageError where one name is given for several results, or a template names an unknown field."""
    several = len(sources) > 1 or any(not source.named for source in sources)
    if text is None:
        streams = any(source.is_stream for source in sources)
        if streams and several:
            raise UsageError("standard input (-) among several inputs needs `output` FOLDER")
        return Destination("stream") if streams else Destination("beside")
    if "\0" in text or not text:
        raise UsageError("`output` is no possible path; give a file, a folder or a template")
    if text == STREAM:
        if several:
            raise UsageError("`output` - takes one picture, and several are given; give a folder or a template")
        return Destination("stream")
    folder, rest = existing_folder(text) if {"{", "}"} & set(text) else ("", text)
    if {"{", "}"} & set(rest) and not exists(Path(text)):
        return _template(rest, several, folder)
    if exists(Path(text)) and not is_folder(Path(text)) and not several:
        return Destination("file", text)
    if is_folder(Path(text)) or text.endswith(("/", os.sep)) or not Path(text).suffix:
        return Destination("folder", text)
    if not several:
        return Destination("file", text)
    if Path(text).suffix.lower() in ENDINGS:
        raise UsageError(
            f"`output` {printable(text)} names one file for several results; give a folder or use {{stem}}"
        )
    return Destination("folder", text)


def _template(text: str, several: bool, folder: str) -> Destination:
    """`text` below `folder`, which exists: braces in its name are its own."""
    fields = FIELD.findall(text)
    unknown = [field for field in fields if field not in FIELDS]
    if unknown or set(FIELD.sub("", text)) & {"{", "}"}:
        wrong = f"{{{printable(unknown[0])}}}" if unknown else "a brace alone"
        raise UsageError(f"`output` holds {wrong}, but a template knows {' '.join(f'{{{name}}}' for name in FIELDS)}")
    if several and "stem" not in fields:
        raise UsageError(f"`output` {printable(text)} gives several results one name; use {{stem}} in it")
    return Destination("template", text, folder)


def chosen_format(asked: str | None, destination: Destination, source_format: str) -> str:
    """`format`, else what the ending of `output` says, else the input's own. Raises OutputError for another ending."""
    if asked is not None:
        return asked
    ending = Path(destination.text).suffix if destination.place in ("file", "template") else ""
    return source_format if ending in ("", ".{ext}") else format_for(destination.text)


def targets(namings: Sequence[Naming], destination: Destination) -> list[Path]:
    """One path per result, no two the same: where names collide, the input's ending, then its folder, are added.

    a.jpg and a.png become a_jpg_x4.png and a_png_x4.png. The names depend on the inputs alone, not on what
    exists: a rerun finds them again.
    """
    stems: list[Callable[[Naming], str]] = [
        lambda n: n.source.path.stem if not n.source.is_stream else "stdin",
        lambda n: f"{n.source.path.stem}_{n.source_ending}",
        lambda n: f"{n.source.path.absolute().parent.name}_{n.source.path.stem}_{n.source_ending}",
    ]
    named = [replace(naming, stem=stems[0](naming)) for naming in namings]
    for stem in stems[1:]:
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for number, naming in enumerate(named):
            groups[identity(_path(naming, destination))].append(number)
        if len(groups) == len(named):
            break
        for numbers in groups.values():
            # Neither ending nor folder tells a.png from A.PNG beside it: these are numbered.
            if len({identity(named[number].source.path) for number in numbers}) > 1:
                for number in numbers:
                    named[number] = replace(named[number], stem=stem(named[number]))
    return _numbered([_path(naming, destination) for naming in named])


def tells_size(naming: Naming, destination: Destination) -> bool:
    """Whether the result's name would be another for a picture of another size."""
    scale = naming.scale if naming.by_scale else ""
    return _path(naming, destination) != _path(replace(naming, scale=scale, width=0, height=0), destination)


def _path(naming: Naming, destination: Destination) -> Path:
    size = f"x{naming.scale}" if naming.by_scale else f"{naming.width}x{naming.height}"
    name = f"{naming.stem}_{size}.{naming.ending}"
    if destination.place == "beside":
        return naming.source.path.parent / name
    if destination.place == "folder":
        return Path(destination.text) / naming.source.tree / name
    if destination.place == "template":
        return Path(destination.folder + _filled(destination.text, naming))
    return Path(destination.text or STREAM)


def _filled(template: str, naming: Naming) -> str:
    values = {
        "stem": naming.stem,
        "ext": naming.ending,
        "scale": naming.scale,
        "width": str(naming.width),
        "height": str(naming.height),
        "folder": str(naming.source.path.parent),
        "tree": str(naming.source.tree),
    }
    return FIELD.sub(lambda match: values[match[1]], template)


def _numbered(paths: Sequence[Path]) -> list[Path]:
    taken: set[str] = set()
    unique = []
    for path in paths:
        path = free_name(path, taken=lambda candidate: identity(candidate) in taken)
        taken.add(identity(path))
        unique.append(path)
    return unique
