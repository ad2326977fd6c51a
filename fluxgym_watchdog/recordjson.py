"""Records as JSON can hold them, and back, checked against the types that `records` declares."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

Record = TypeVar("Record")
LARGEST_NUMBER = 10**18
"""More than any count, size or time that a record holds."""


def plain(record: Any) -> dict[str, Any]:
    """A record as JSON can hold it; what JSON does not know (NaN, infinity) becomes None."""
    return cast(dict[str, Any], _plain(record))


def decode(kind: type[Record], found: Any) -> Record:
    """A record from its JSON; keys of a later version are left out, missing ones get their defaults.

    Raises ValueError where something is not of the type that the record declares, or is missing without a default.
    """
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found {type(found).__name__}")
    values = {}
    for name, declared in _types(cast(Any, kind)).items():
        if name in found:
            try:
                values[name] = _value(declared, found[name])
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{name}: {error}") from error
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


_AS_THEY_ARE = frozenset({type(None), bool, int, str})
"""Types that JSON holds as they are: most of what is in a record, and asking for more costs a tick its time."""


def _plain(found: Any) -> Any:
    if type(found) in _AS_THEY_ARE:
        return found
    if isinstance(found, Enum):
        return found.value
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if isinstance(found, (list, tuple)):
        return [_plain(value) for value in found]
    if is_dataclass(found) and not isinstance(found, type):
        return {name: _plain(getattr(found, name)) for name in _names(type(found))}
    if isinstance(found, Mapping):
        return {str(key): _plain(value) for key, value in found.items()}
    return found if isinstance(found, (int, str)) else str(found)


@cache
def _types(kind: type) -> dict[str, Any]:
    declared = typing.get_type_hints(kind)
    return {f.name: declared[f.name] for f in fields(kind)}


def _value(declared: Any, found: Any) -> Any:
    return _reader(declared)(found)


@cache
def _reader(declared: Any) -> Callable[[Any], Any]:
    """What reads a value of a declared type; made once a type, since thousands of records are read at a time."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if declared is object:
        return lambda found: found
    if origin is types.UnionType:  # `X | None` is the only kind of union in records
        read = _reader(arguments[0])
        return lambda found: None if found is None else read(found)
    if origin is tuple:
        read = _reader(arguments[0])
        return lambda found: tuple(map(read, _checked(found, list, declared)))
    if origin is Mapping:
        read = _reader(arguments[1])
        return lambda found: {
            _key(arguments[0], key): read(value) for key, value in _checked(found, dict, declared).items()
        }
    if isinstance(declared, type) and issubclass(declared, Enum):
        return declared
    if is_dataclass(declared):
        return lambda found: decode(cast(type, declared), found)
    if declared is float:
        return lambda found: _float(found) if type(found) is int else _checked(found, float, declared)
    if declared is int:
        return lambda found: _bounded(_checked(found, int, declared))
    return lambda found: _checked(found, declared, declared)


def _float(found: int) -> float:
    return float(_bounded(found))


def _bounded(found: int) -> int:
    if abs(found) > LARGEST_NUMBER:
        raise ValueError("a number is too large")
    return found


def _checked(found: Any, kind: type, declared: Any) -> Any:
    if type(found) is not kind:
        raise ValueError(f"{found!r:.80} is not {getattr(declared, '__name__', declared)}")
    return found


def _key(declared: Any, key: str) -> Any:
    return int(key) if declared is int else key
