"""Configurations, frozen dataclasses, as plain JSON or TOML, and back; what is unknown is refused.

Nothing here knows any of them by name: their fields and types say what is possible.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_type_hints

from dreamsr.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

Config = TypeVar("Config")
Keys = tuple[str, ...]
"""The keys that lead to a value, outermost first."""
CHOICE = "choice"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field that holds one of several dataclasses: of `kinds()`, the one called as field `by` says.

    In a mapping it stands under that name. Tables of the other names are checked, then ignored. Field `by` is a text
    with a default.
    """

    by: str
    kinds: Callable[[], Mapping[str, type[Any]]]


def chosen(by: str, kinds: Callable[[], Mapping[str, type[Any]]]) -> dict[str, Choice]:
    """The metadata that declare such a field; its class sees to a default."""
    return {CHOICE: Choice(by, kinds)}


def require(holds: bool, name: str, given: object, possible: str) -> None:
    """Raise ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} is {given!r}, but it must be {possible}")


def from_mapping(cls: type[Config], values: Mapping[str, Any], *, source: str) -> Config:
    """Build a `cls` from nested plain values; `source` names their origin in errors.

    Raises ConfigError for unknown keys, wrong types and impossible values.
    """
    try:
        built: Config = _built(cls, values, ())
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return built


def unused_field(cls: type[Any], values: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """The first field of `asked` that a `cls` of `values` does not have or use, and those it does have; else None."""
    return _unused(cls, values, asked, ())


def _unused(
    cls: type[Any], values: Mapping[str, Any], asked: Mapping[str, Any], place: Keys
) -> tuple[str, list[str]] | None:
    used = {key: kind for key, kind, field in _entries(cls, values) if field is not None}
    for key, value in asked.items():
        if key not in used:
            return ".".join((*place, key)), [".".join((*place, name)) for name in used]
        kind, inner = used.get(key), values.get(key)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping) and isinstance(inner, Mapping):
            found = _unused(cast("type[Any]", kind), inner, value, (*place, key))
            if found is not None:
                return found
    return None


def to_mapping(config: DataclassInstance) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested dicts that JSON and TOML can hold (infinity as the text "inf")."""
    values = {one: getattr(config, one.name) for one in dataclasses.fields(config)}
    return {_key(config, one): _plain(value) for one, value in values.items()}


def _key(config: DataclassInstance, one: dataclasses.Field[Any]) -> str:
    return str(getattr(config, one.metadata[CHOICE].by)) if CHOICE in one.metadata else one.name


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _built(cls: type[Any], values: Any, place: Keys) -> Any:
    """One dataclass; its own checks tell what is impossible, pydantic what is of a wrong type."""
    if not isinstance(values, Mapping):
        raise _wrong(place or (cls.__name__,), "Input should be an object")
    given: dict[str, Any] = {}
    known: set[str] = set()
    for key, kind, field in _entries(cls, values):
        known.add(key)
        if key in values:
            read = _built if dataclasses.is_dataclass(kind) else _leaf
            value = read(kind, values[key], (*place, key))
            if field is not None:
                given[field] = value
        elif field is not None and _is_required(cls, field):
            raise _wrong((*place, key), "Field required")
    for key in values:
        if key not in known:
            raise _wrong((*place, str(key)), "Unexpected keyword argument")
    return cls(**given)


def _entries(cls: type[Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str | None]]:
    """(key, type, the field it fills) of all that a mapping of `cls` may hold; None: is checked but fills none."""
    types = get_type_hints(cls)
    choices = [one.metadata[CHOICE] for one in dataclasses.fields(cls) if CHOICE in one.metadata]
    for choice in choices:
        types[choice.by] = Literal[tuple(choice.kinds())]
    for one in dataclasses.fields(cls):
        if CHOICE not in one.metadata:
            yield one.name, types[one.name], one.name
            continue
        choice = one.metadata[CHOICE]
        name = values.get(choice.by, getattr(cls, choice.by))
        for key, kind in choice.kinds().items():
            yield key, kind, one.name if key == name else None


def _is_required(cls: type[Any], field: str) -> bool:
    (one,) = (one for one in dataclasses.fields(cls) if one.name == field)
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _leaf(kind: Any, value: Any, place: Keys) -> Any:
    """A number, a text, or a tuple of them."""
    from pydantic import ValidationError

    try:
        # JSON mode is strict about numbers and texts, yet takes arrays for tuples.
        return _adapter(kind).validate_json(json.dumps(_numbers(value), default=str))
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong((*place, *map(str, first["loc"])), first["msg"]) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _numbers(value: Any) -> Any:
    """The text "inf" becomes the number, everywhere."""
    if isinstance(value, list | tuple):
        return [_numbers(inner) for inner in value]
    return math.inf if value == "inf" else value


def _wrong(place: Keys, problem: str) -> ConfigError:
    return ConfigError(f"{'.'.join(place)}: {problem}")
