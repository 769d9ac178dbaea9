"""The documents of a .txt are those that a slow, obvious reader finds, wherever blocks and chunks end."""

import random

import pytest

from data_prep.documents import text_chunks
from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.lines import group_lines
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import read_chunks

SIGNS = ["a", "b c", "\n", "\n", "\n\n", "\r\n", "\r", " ", "\t", "\xa0", "\u2028", "\x0b", "é", "\U0001f600", "\ufeff"]
BAD = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f", b"\x80"]


def read(content, rules, *, block_bytes):
    """Return the documents and the number of skipped lines."""
    blocks = (content[start : start + block_bytes] for start in range(0, len(content), block_bytes))
    skipped, documents, parts = SkippedRecords("shard", max_bad_records=100), [], []
    for text, ends_document in group_lines(read_chunks(blocks, skipped), rules, label="shard"):
        parts.append(text)
        if ends_document:
            documents, parts = [*documents, "".join(parts)], []
    return [document for document in [*documents, "".join(parts)] if document], len(skipped.records)


def read_slowly(content, rules):
    lines, num_skipped = [], 0
    for line in content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n"):
        try:
            lines.append((line + b"\n").decode().replace("\r\n", "\n").removesuffix("\n"))
        except UnicodeDecodeError:
            num_skipped += 1
    if rules.document_rule == "line":
        lines, size = [line for line in lines if line], rules.lines_per_document
        return ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)], num_skipped
    documents, open_lines = [], []
    for line in lines:
        if line.strip():
            open_lines.append(line)
        elif open_lines:
            documents, open_lines = [*documents, "\n".join(open_lines) + rules.blank_line], []
    return documents + ["\n".join(open_lines)] * bool(open_lines), num_skipped


@pytest.mark.parametrize("end_token_rule", ["gpt2", "fairseq"])
@pytest.mark.parametrize(("rule", "size"), [("blank_line", 1), ("line", 1), ("line", 3)])
def test_documents_and_skipped_lines_are_those_of_a_slow_reader(monkeypatch, rule, size, end_token_rule):
    rules, generator = (
        DocumentRules(document_rule=rule, lines_per_document=size, end_token_rule=end_token_rule),
        random.Random(0),
    )
    for _ in range(700):
        signs = [sign.encode() for sign in SIGNS] + BAD * generator.randrange(2)
        content = b"".join(generator.choices(signs, k=generator.randrange(40)))
        longest = max(map(len, content.split(b"\n")))  # a line longer than a chunk is never skipped
        monkeypatch.setattr(text_chunks, "CHUNK_BYTES", longest + 4 + generator.randrange(9))
        assert read(content, rules, block_bytes=generator.choice([1, 2, 7, 99])) == read_slowly(content, rules), content


def test_lines_longer_than_a_chunk_stay_whole(monkeypatch):
    monkeypatch.setattr(text_chunks, "CHUNK_BYTES", 8)
    generator = random.Random(0)
    for _ in range(700):
        signs = [
            "abc",
            "é",
            "\U0001f600",
            "\n",
            "\n\n",
            "d\r\n",
            " \t " * generator.randrange(9),
            "\xa0\u2028" * 4,
            "\r",
        ]
        content = "".join(generator.choices(signs, k=30)).encode()
        for rules in (DocumentRules(), DocumentRules(document_rule="line", lines_per_document=2)):
            assert read(content, rules, block_bytes=generator.choice([1, 2, 7, 99])) == read_slowly(content, rules)


def test_a_bad_line_after_a_long_one_is_skipped():
    assert read(b"a" * 100_000 + b"\nb\xff\nc", DocumentRules(), block_bytes=2**14) == (["a" * 100_000 + "\nc"], 1)


@pytest.mark.parametrize("num_spaces", [0, 40_000, 200_000])
def test_a_blank_line_ends_a_document_whatever_its_length(num_spaces):
    content = b"one\n" + b" " * num_spaces + b"\ntwo"
    assert read(content, DocumentRules(), block_bytes=2**14) == (["one", "two"], 0)


def test_a_line_that_is_indented_by_more_than_a_chunk_keeps_its_indentation():
    content = b"one\n" + b" " * 200_000 + b"two"
    assert read(content, DocumentRules(), block_bytes=2**14) == ([content.decode()], 0)


def test_whitespace_without_end_is_refused_before_it_fills_memory():
    blocks = iter([b" " * 2**20] * 2**20)  # a terabyte
    chunks = read_chunks(blocks, SkippedRecords("shard"))
    with pytest.raises(ValueError, match="shard has a line that begins with .* characters of whitespace; remove it"):
        list(group_lines(chunks, DocumentRules(), label="shard"))
