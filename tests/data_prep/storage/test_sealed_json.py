"""Sealed JSON is read back as it was written, and any changed byte is refused."""

import pytest

from data_prep.storage.sealed_json import sealed_json, unsealed

CONTENT = {"name": "é", "sizes": [1, 2]}


def test_the_content_is_read_back():
    assert unsealed(sealed_json(CONTENT, kind="facts"), kind="facts") == CONTENT


def test_the_order_of_names_does_not_change_the_bytes():
    assert sealed_json(dict(reversed(CONTENT.items())), kind="facts") == sealed_json(CONTENT, kind="facts")


def test_every_changed_byte_is_refused():
    sealed = sealed_json(CONTENT, kind="facts")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ValueError, match="its content has digest [0-9a-f]{32}, but it begins with"):
            unsealed(bytes(changed), kind="facts")


def test_a_truncated_file_and_another_kind_are_refused():
    sealed = sealed_json(CONTENT, kind="facts")
    for content, kind in ((sealed[:-1], "facts"), (b"", "facts"), (sealed, "others")):
        with pytest.raises(ValueError, match="its content has digest"):
            unsealed(content, kind=kind)
