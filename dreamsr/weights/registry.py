"""weights.toml: one table per published weights file, and nothing about any of them in code."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dreamsr.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

FILE_NAME = "weights.toml"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
AUTOMATIC = "auto"
"""In place of a name: the weights that suit a picture."""
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
UNKNOWN, MISSING = "unexpected_keyword_argument", "missing"  # pydantic's words

MeasuredRow = Mapping[str, str | int | float]
"""One measurement: what `dreamsr bench` found, with at least `dataset` and `protocol` in words."""


@dataclass(frozen=True)
class WeightsEntry:
    """One table of weights.toml. `repo` is "" as long as no repository holds the file.

    denoise_partner: weights of the same net that leave noise and blocks as they are; `denoise` mixes the two.
    automatic: whether `AUTOMATIC` may choose them, or their partner, for pictures to be enlarged by their scale.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"strict": True, "extra": "forbid", "allow_inf_nan": False}

    name: str
    description: str
    backbone: str
    scale: int
    degradation: str
    steps: int
    sha256: str
    size_bytes: int
    licence: str
    training_data: str
    training_data_licence: str
    denoise_partner: str = ""
    automatic: bool = False
    bundled: bool = False
    repo: str = ""
    file: str = "model.safetensors"
    revision: str = ""
    metrics: tuple[MeasuredRow, ...] = ()

    @property
    def published(self) -> bool:
        """Whether a Hub repository is said to hold the file."""
        return bool(self.repo)


def registry() -> Mapping[str, WeightsEntry]:
    """Every table of weights.toml by name, in its order. Raises WeightsError where the file is missing or wrong."""
    return _read(registry_file())


def describe_weights(name: str) -> WeightsEntry | None:
    """The table of `name`, or None if weights.toml has no such name."""
    return registry().get(name)


def automatic_weights() -> list[WeightsEntry]:
    """The tables among which `AUTOMATIC` chooses, one for each scale, ascending. Raises WeightsError without any."""
    entries = sorted((entry for entry in registry().values() if entry.automatic), key=lambda entry: entry.scale)
    if not entries:
        raise WeightsError(f"{FILE_NAME} names no weights that {AUTOMATIC} may choose; name some")
    return entries


def candidates(weights: str, denoise: float | None) -> dict[str, str]:
    """What `weights` stands for: each name with that of its partner, "" where nothing is to be mixed.

    `AUTOMATIC` stands for all that it may choose, of which a `denoise` below 1 leaves those with a partner; None leaves
    all, and their partners to be chosen as well. Anything else stands for itself.
    Raises UsageError where there is nothing to mix with, or `denoise` cannot be.
    """
    if denoise is not None and not 0 <= denoise <= 1:
        raise UsageError(f"`denoise` is {denoise:g}, but it must be in 0..1")
    tables = registry()
    automatic = weights == AUTOMATIC
    names = [entry.name for entry in automatic_weights()] if automatic else [weights]
    partners = {name: tables[name].denoise_partner if name in tables else "" for name in names}
    if denoise == 1 or (denoise is None and not automatic):
        return dict.fromkeys(names, "")
    if denoise is None:
        return partners
    if able := {name: partner for name, partner in partners.items() if partner}:
        return able
    mixable = ", ".join(name for name, entry in tables.items() if entry.denoise_partner) or "none yet"
    raise UsageError(
        f"`denoise` works with weights that have a partner to be mixed with ({mixable}), not with {weights}"
    )


def registry_file() -> Path:
    """weights.toml inside the installed package, or beside the package in a source checkout."""
    package = Path(str(files("dreamsr")))
    for path in (package / FILE_NAME, package.parent / FILE_NAME):
        if path.is_file():
            return path
    raise WeightsError(f"{package / FILE_NAME} is missing; the installation is incomplete, install dreamsr again")


def bundled_file(name: str) -> Path:
    """Where weights that come with the package lie."""
    return Path(str(files("dreamsr"))) / "bundled" / f"{name}.safetensors"


def unknown_weights(name: str) -> WeightsError:
    """The error for a name that nothing answers to, with the names that do."""
    names = list(registry())
    if name == AUTOMATIC:
        able = ", ".join(entry.name for entry in automatic_weights())
        return WeightsError(f"{AUTOMATIC} chooses weights for a picture; here, name one of them: {able}")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    known = ", ".join(names) or "none"
    return WeightsError(
        f"no weights are called {name!r}; {hint}known names: {known}; also possible: "
        "a .safetensors file, the folder of a training run, or user/repo[@revision][:file] on the Hugging Face Hub"
    )


@cache
def _read(path: Path) -> Mapping[str, WeightsEntry]:
    try:
        return _parsed(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None


def parse_registry(text: str, *, source: str) -> dict[str, WeightsEntry]:
    """Tables of a weights.toml. Raises WeightsError for what is unknown, missing, or cannot be."""
    from dreamsr.core.backbones import config_classes

    entries = _parsed(text, source)
    for name, entry in entries.items():
        if entry.backbone not in config_classes():
            possible = ", ".join(config_classes())
            raise WeightsError(f"{source}: [{name}]: backbone is {entry.backbone!r}, possible: {possible}")
        if entry.automatic and any(e.automatic and e.scale == entry.scale for n, e in entries.items() if n != name):
            raise WeightsError(f"{source}: [{name}]: automatic, as other weights of scale {entry.scale} are")
        if entry.denoise_partner and entry.denoise_partner not in set(entries) - {name}:
            raise WeightsError(f"{source}: [{name}]: denoise_partner is {entry.denoise_partner!r}, which has no table")
    return entries


def _parsed(text: str, source: str) -> dict[str, WeightsEntry]:
    """The same, whatever the backbones are called: these bring torch, which a look at our own list does not need."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"{source}: not TOML ({error})") from None
    return {name: _entry(name, table, source) for name, table in tables.items()}


def _entry(name: str, table: object, source: str) -> WeightsEntry:
    from pydantic import ValidationError

    where = f"{source}: [{name}]"
    if not NAME.fullmatch(name):
        raise WeightsError(f"{where}: a name is made of a-z, 0-9, '.', '_' and '-'")
    if not isinstance(table, dict):
        raise WeightsError(f"{where}: must be a table")
    try:
        # JSON mode is strict about numbers and texts, yet takes arrays for tuples. Dates are no values here.
        entry = _adapter().validate_json(json.dumps({**table, "name": name}, default=lambda _: None))
    except ValidationError as error:
        raise WeightsError(f"{where}: {_in_words(error.errors(), table)}") from None
    for problem in _problems(entry):
        raise WeightsError(f"{where}: {problem}")
    return entry


@cache
def _adapter() -> TypeAdapter[WeightsEntry]:
    from pydantic import TypeAdapter

    return TypeAdapter(WeightsEntry)


def _in_words(errors: Sequence[ErrorDetails], table: Mapping[str, Any]) -> str:
    """What is wrong with a table's keys or types, the worst of it."""
    fields = {field.name: field.type for field in dataclasses.fields(WeightsEntry) if field.name != "name"}
    places = {kind: [str(one["loc"][0]) for one in errors if one["type"] == kind] for kind in (UNKNOWN, MISSING)}
    if places[UNKNOWN]:
        return f"{min(places[UNKNOWN])} is unknown; possible: {', '.join(fields)}"
    if places[MISSING]:
        return f"{', '.join(sorted(places[MISSING]))} is missing"
    key, *deeper = errors[0]["loc"]
    if key != "metrics":
        return f"{key} is {table[str(key)]!r}, but it must be of type {fields[str(key)]}"
    return (
        "metrics hold texts and finite numbers only" if len(deeper) > 1 else "metrics must be tables, [[name.metrics]]"
    )


def _problems(entry: WeightsEntry) -> Iterable[str]:
    """What cannot be true of an entry whose types are right."""
    for key in ("description", "degradation", "licence", "training_data", "training_data_licence"):
        if not getattr(entry, key).strip():
            yield f"{key} is empty"
    for key in ("scale", "steps", "size_bytes"):
        if getattr(entry, key) < 1:
            yield f"{key} is {getattr(entry, key)}, but it must be 1 or more"
    if not SHA256.fullmatch(entry.sha256):
        yield f"sha256 is {entry.sha256!r}, but it must be 64 hexadecimal digits"
    if entry.repo and not REPO.fullmatch(entry.repo):
        yield f"repo is {entry.repo!r}, but it must be user/repo, or empty until a repository holds the file"
    if entry.repo and not COMMIT.fullmatch(entry.revision):
        yield f"revision is {entry.revision!r}, but it must be the 40 hexadecimal digits of a commit"
    if not all(isinstance(row.get(key), str) for row in entry.metrics for key in ("dataset", "protocol")):
        yield "every metrics table needs dataset and protocol in words"
    if not is_weights_path(entry.file):
        yield f"file is {entry.file!r}, but it must be a .safetensors file in the repository"


def is_weights_path(file: str) -> bool:
    """Whether `file` may be asked of a repository: a relative path down to a .safetensors file."""
    parts = file.split("/")
    return file.endswith(".safetensors") and all(part not in ("", ".", "..") for part in parts) and "\\" not in file


def table(entry: WeightsEntry) -> str:
    """The TOML of an entry, which `parse_registry` reads back."""
    lines = [f'["{entry.name}"]' if "." in entry.name else f"[{entry.name}]"]
    for field in dataclasses.fields(entry):
        if field.name not in ("name", "metrics"):
            lines.append(f"{field.name} = {_toml(getattr(entry, field.name))}")
    for row in entry.metrics:
        lines += ["", lines[0].replace("[", "[[").replace("]", ".metrics]]")]
        lines += [f"{_key(key)} = {_toml(value)}" for key, value in row.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    # JSON's texts and numbers are TOML's, but for DEL and for halves of characters, which stay unescaped here.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
