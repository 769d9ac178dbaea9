"""A text is found in a field or in nested ones, and a message says what is there instead."""

import pytest

from data_prep.documents.text_field import MISSING, listed, value_of, why_no_text


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"a.b": 1, "a": {"b": 2}}, 1), ({"a": {"b": 2}}, 2), ({"a": {"b": None}}, None),
        ({"a": {"c": 2}}, MISSING), ({"a": "b"}, MISSING), ({"a": None}, MISSING), (["a.b"], MISSING), (7, MISSING),
    ],
)  # fmt: skip
def test_a_dotted_name_is_a_field_or_a_path(row, value):
    assert value_of(row, "a.b") is value


@pytest.mark.parametrize(("value", "kind"), [(None, "null"), (True, "true"), (1.0, "a number"), ([], "a list")])
def test_a_message_uses_the_words_of_json(value, kind):
    assert why_no_text({"text": value}, "text").startswith(f"holds {kind} in field 'text'")


def test_a_message_does_not_grow_with_a_row():
    row = {"x" * 10_000 + str(number): 0 for number in range(1000)}
    assert len(why_no_text(row, "text")) < 1500 and listed(row).endswith(" and 990 more")
