"""Dataclass fields with rules beside them; every value is converted to its type and checked against its rules."""

import dataclasses
import math
import types
import typing
from typing import Any

NONE = ("None", "none", "null")  # spellings of None on the command line


def setting(default: Any = dataclasses.MISSING, *, help: str, **rules) -> Any:
    """A dataclass field. Rules: choices (for a list, of each item), at_least, below; others are kept as metadata."""
    metadata = {"help": help, **rules}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def conform(config) -> None:
    """Convert and check every field of a frozen dataclass. ValueError, naming field and value, if a rule is broken."""
    for spec in dataclasses.fields(config):
        value = _convert(spec, getattr(config, spec.name))
        _check_choices(spec, value)
        _check_range(spec, value)
        object.__setattr__(config, spec.name, value)


def _type_of(spec: dataclasses.Field) -> tuple[type, bool]:
    """The field's type without None, and whether None is allowed."""
    if isinstance(spec.type, types.UnionType):
        return typing.get_args(spec.type)[0], True
    return spec.type, False


def _convert(spec: dataclasses.Field, value):
    """The value in its field's type: the command line gives text, and YAML reads 1e-3 as text."""
    kind, is_optional = _type_of(spec)
    if value is None or (is_optional and value in NONE):
        if is_optional:
            return None
        raise ValueError(f"{spec.name} must not be empty")
    try:
        if typing.get_origin(kind) is list:
            return _convert_list(value, typing.get_args(kind)[0])
        return _convert_scalar(value, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{spec.name}={value!r} is not of type {getattr(kind, '__name__', kind)}") from None


def _convert_list(value, item_kind) -> list:
    if isinstance(value, str):
        value = [value]
    if item_kind is str:  # a path may hold commas and spaces
        return [str(item) for item in value if item not in ("", "[]", *NONE)]
    parts = [part for item in value for part in str(item).strip("[]").replace(",", " ").split()]
    return [_convert_scalar(part, item_kind) for part in parts]


def _convert_scalar(value, kind):
    if kind is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if isinstance(value, bool | list | dict):
        raise TypeError(value)
    if kind is int and float(value) != int(float(value)):
        raise ValueError(value)
    # An integer goes through float only if it is written as 1e6: floats have 53 bits.
    return int(float(value)) if kind is int and not str(value).lstrip("-").isdigit() else kind(value)


def _check_choices(spec: dataclasses.Field, value) -> None:
    choices = spec.metadata.get("choices")
    if choices is None:
        return
    if isinstance(value, list):
        for item in value:
            if item not in choices:
                raise ValueError(f"{spec.name} names {item!r}, which is not one of {_listed(choices)}")
    elif value not in choices:
        raise ValueError(f"{spec.name}={value!r} is not one of {_listed(choices)}")


def _check_range(spec: dataclasses.Field, value) -> None:
    """Refuses NaN and infinity too."""
    at_least, below = spec.metadata.get("at_least"), spec.metadata.get("below", math.inf)
    if at_least is None or value is None or at_least <= value < below:
        return
    upper = f" and below {below}" if below < math.inf else " and finite" if isinstance(value, float) else ""
    or_none = ", or None" if _type_of(spec)[1] else ""
    raise ValueError(f"{spec.name}={value} must be at least {at_least}{upper}{or_none}")


def _listed(choices) -> str:
    return ", ".join(map(str, choices))
