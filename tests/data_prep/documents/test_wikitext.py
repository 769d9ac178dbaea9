"""A file of WikiText is read as its articles, in the original layout of lines and in the hub's layout of rows."""

import pytest

from data_prep.documents import lines
from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.lines import group_lines
from data_prep.documents.readers import can_be_cut
from data_prep.documents.text_chunks import Chunk
from data_prep.documents.wikitext import is_title
from tests.data_prep.documents.raw_shards import documents_of, write_raw_shard
from tests.data_prep.documents.wikitext_excerpt import LIGHTHOUSE, LINES, ROWS, SONG, TEXT

RULES = DocumentRules(document_rule="wikitext")


def write(folder, suffix):
    if suffix != ".txt":
        return write_raw_shard(folder / f"train{suffix}", ROWS)
    (folder / "train.txt").write_text(TEXT)
    return folder / "train.txt"


@pytest.mark.parametrize("suffix", [".txt", ".parquet", ".jsonl"])
def test_an_article_is_a_document(tmp_path, suffix):
    assert documents_of(write(tmp_path, suffix), document_rule="wikitext") == [LIGHTHOUSE, SONG]


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_with_fairseq_every_line_gives_one_end_token(tmp_path, suffix):
    documents = documents_of(write(tmp_path, suffix), document_rule="wikitext", end_token_rule="fairseq")
    assert documents == [LIGHTHOUSE + "\n\n", SONG]  # each document ends in an end token too
    assert sum(document.count("\n") + 1 for document in documents) == len(LINES) - 1  # but for the first, a blank one


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_parts_of_lines_make_the_same_articles(size):
    chunks = [
        Chunk(line[at : at + size], at + size >= len(line)) for line in LINES for at in range(0, len(line) or 1, size)
    ]
    parts = list(group_lines(iter(chunks), RULES, label="train.txt"))
    assert "".join(text + "|" * ends for text, ends in parts) == f"{LIGHTHOUSE}|{SONG}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("= Title =", True),
        ("= 0 = 1 =", True),
        ("= = Section = =", False),
        ("= = = Part = = =", False),
        ("= =", False),
        ("=", False),
        ("a = b", False),
        ("", False),
    ],
)
def test_titles_have_one_sign_on_each_side(line, expected):
    assert is_title(line) == expected


def test_a_line_that_would_fill_memory_is_refused(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 5)
    with pytest.raises(ValueError, match="train.txt has a line of more than 5 characters; divide or remove it"):
        list(group_lines(iter([Chunk("abc", False), Chunk("def", False)]), RULES, label="train.txt"))


def test_a_file_is_not_cut_at_blank_lines_which_end_no_article():
    assert can_be_cut("a.txt", DocumentRules()) and can_be_cut("a.jsonl", DocumentRules())
    assert not can_be_cut("a.txt", RULES) and not can_be_cut("a.jsonl", RULES)
