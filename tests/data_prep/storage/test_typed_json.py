"""What asdict() and JSON made of a dataclass comes back; anything else is refused with the name of the field."""

import json
from dataclasses import asdict, dataclass

import pytest

from data_prep.storage.typed_json import from_json


@dataclass(frozen=True)
class Page:
    number: int
    title: str

    def __post_init__(self):
        if self.number < 1:
            raise ValueError(f"page {self.number} is not in a book")


@dataclass(frozen=True)
class Book:
    pages: tuple[Page, ...]
    words: tuple[str, ...]
    cover: Page | None


BOOK = Book((Page(1, "one"), Page(2, "two")), ("a", "b"), None)


def values(**fields: object) -> dict:
    return json.loads(json.dumps(asdict(BOOK))) | fields


@pytest.mark.parametrize("book", [BOOK, Book((), (), Page(3, ""))])
def test_a_dataclass_comes_back(book):
    assert from_json(Book, json.loads(json.dumps(asdict(book)))) == book


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"Book is \[\], not an object"),
        ({}, r"Book has the wrong fields: \['cover', 'pages', 'words'\]"),
        (values(colour=1), r"Book has the wrong fields: \['colour'\]"),
        (values(pages=None), "pages of Book is None, not tuple"),
        (values(pages={"number": 1, "title": ""}), "pages of Book is {.*}, not tuple"),
        (values(pages=[[]]), r"pages of Book is \[\], not Page"),
        (values(words="ab"), "words of Book is 'ab', not tuple"),
        (values(words=["a", {}]), "words of Book is {}, not str"),
        (values(cover=0), "cover of Book is 0, not .*Page"),
        (values(cover={"number": True, "title": ""}), "number of Page is True, not int"),
        (values(cover={"number": 1.0, "title": ""}), "number of Page is 1.0, not int"),
        (values(cover={"number": 1, "title": None}), "title of Page is None, not str"),
        (values(cover={"number": 0, "title": ""}), "page 0 is not in a book"),
    ],
)
def test_anything_else_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        from_json(Book, given)


def test_a_long_value_is_named_in_few_characters():
    with pytest.raises(ValueError) as error:
        from_json(Book, values(words={"x" * 10**6: "y" * 10**6}))
    assert len(str(error.value)) < 200
