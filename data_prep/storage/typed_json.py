"""A dataclass out of JSON that may hold anything: every field is there and of its type, or it is refused."""

import reprlib
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Parsed = TypeVar("Parsed")


def from_json(kind: type[Parsed], values: object) -> Parsed:
    """Return the `kind`, a dataclass, of which asdict() made `values`; ValueError names the field that is wrong.

    Its fields are int, str, other such dataclasses, tuple[X, ...], or any of these or None.
    """
    types = _types(kind)
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is {_short(values)}, not an object with fields")
    if values.keys() != types.keys():
        raise ValueError(f"{kind.__name__} has the wrong fields: {_short(sorted(types.keys() ^ values.keys()))}")
    parsed = {}
    for name, expected in types.items():
        value = values[name]
        parsed[name] = value if type(value) is expected else _parsed(kind, name, expected, value)
    return kind(**parsed)


def _parsed(kind: type, name: str, expected: Any, value: object) -> object:
    """Return a value that is not itself an int or a str that was expected."""
    arguments = get_args(expected)
    if value is None and NoneType in arguments:
        return None
    if get_origin(expected) is tuple:
        if isinstance(value, list):
            inner = arguments[0]
            return tuple(each if type(each) is inner else _parsed(kind, name, inner, each) for each in value)
    elif isinstance(value, dict):
        for choice in filter(is_dataclass, arguments or (expected,)):
            return from_json(choice, value)
    raise ValueError(f"{name} of {kind.__name__} is {_short(value)}, not {getattr(expected, '__name__', expected)}")


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _short(value: object) -> str:
    return reprlib.repr(value)
