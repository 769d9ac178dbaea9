"""The field with the text of a row: a name, or a path such as `meta.text` into nested fields."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MISSING = object()
_MOST_NAMES = 10  # that a message lists


def value_of(row: Any, text_field: str) -> Any:
    """Return the value of the field; MISSING if the row, or a value around the field, is not an object with it."""
    if isinstance(row, dict) and text_field in row:
        return row[text_field]
    for name in text_field.split("."):
        if not isinstance(row, dict) or name not in row:
            return MISSING
        row = row[name]
    return row


def why_no_text(row: Any, text_field: str) -> str:
    """Return why the row has no text, for a message."""
    if not isinstance(row, dict):
        return f"is {_kind(row)}, not an object; write one object per line, as `jq -c '.[]'` does with an array"
    value = value_of(row, text_field)
    if value is MISSING:
        return f"has no text in field {text_field!r} (it has {listed(row)}; choose with --text_field)"
    return f"holds {_kind(value)} in field {text_field!r}, not text; choose with --text_field"


def column_path(schema: pa.Schema, text_field: str) -> list[str]:
    """Return the names on the path to a column of text; ValueError, without the file's name, if there is none."""
    path = [text_field] if text_field in schema.names else text_field.split(".")
    if path[0] not in schema.names:
        raise ValueError(f"has no column {text_field!r} (it has {listed(schema.names)}); choose with --text_field")
    kind = schema.field(path[0]).type
    for name in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            raise ValueError(f"has no column {text_field!r}: {path[0]!r} holds {kind}; choose with --text_field")
        kind = kind.field(name).type
    if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise ValueError(f"holds {kind}, not text, in column {text_field!r}; choose with --text_field")
    return path


def column_texts(batch: pa.RecordBatch, path: list[str]) -> pa.Array:
    """Return the column at the end of `path`, its categories replaced by their texts."""
    column = batch.column(path[0])
    column = pc.struct_field(column, path[1:]) if path[1:] else column
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def listed(names: list[str] | dict) -> str:
    names = list(names)
    shown = [str(name)[:100] for name in names[:_MOST_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _kind(value: Any) -> str:
    """Return what JSON calls the value."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: str(value).lower(), float: "a number"}
    return "null" if value is None else kinds[type(value)]
