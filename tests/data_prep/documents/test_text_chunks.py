"""Text comes out in chunks of whole lines, whatever the blocks; lines that are not UTF-8 are skipped or refused."""

import random

import pytest

from data_prep.documents import text_chunks
from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import Chunk, cut_lines, read_chunks


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(text_chunks, "CHUNK_BYTES", 8)


def chunks(*blocks: bytes, allowed: int = 0) -> list[Chunk]:
    return list(read_chunks(iter(blocks), SkippedRecords("part0.txt", max_bad_records=allowed)))


def whole(found: list[Chunk]) -> str:
    return "".join(chunk.text + "\n" * chunk.ends_line for chunk in found)


def test_short_lines_come_together_and_the_last_one_needs_no_newline():
    assert chunks(b"a\nb\nc") == [Chunk("a\nb\nc", True)]
    assert chunks(b"a\nb\nc\n") == [Chunk("a\nb\nc", True)]
    assert chunks() == [] and chunks(b"", b"") == []


def test_a_full_chunk_ends_at_its_last_newline():
    assert chunks(b"one\ntwo\nth", b"ree\n") == [Chunk("one\ntwo", True), Chunk("three", True)]


def test_a_chunk_of_exactly_the_limit_is_given_out_at_once():
    lines = cut_lines(iter([b"1234567\n", b"x\n"]))
    assert next(lines) == b"1234567\n" and list(lines) == [b"x\n"]


def test_a_long_line_comes_in_parts_and_its_last_part_alone():
    assert chunks(b"1234567890", b"abcdefghi", b"jk\nx\ny\n") == [
        Chunk("1234567890", False), Chunk("abcdefghi", False), Chunk("jk", True), Chunk("x\ny", True),
    ]  # fmt: skip


def test_a_long_line_without_a_newline_at_the_end_of_the_file_ends_there():
    assert chunks(b"1234567890") == [Chunk("1234567890", False), Chunk("", True)]


@pytest.mark.parametrize("character", ["é", "€", "😀", "\u07ff", "\u0800", "\u2000", "\uffff", "\U00010000"])
def test_a_character_is_never_cut(character):
    raw = character.encode()
    for cut in range(1, len(raw)):
        found = chunks(b"12345678" + raw[:cut], raw[cut:] + b"0\n")
        assert whole(found) == f"12345678{character}0\n" and found[0] == Chunk("12345678", False)
    assert chunks(b"12345678" + raw, b"90\n")[0] == Chunk(f"12345678{character}", False)


def test_a_carriage_return_waits_for_its_line_feed():
    assert chunks(b"1234567\r", b"\nx\n") == [Chunk("1234567", False), Chunk("", True), Chunk("x", True)]
    assert chunks(b"ab\r\ncd\r\n") == [Chunk("ab\ncd", True)]


def test_only_the_first_bytes_of_a_file_can_be_a_byte_order_mark():
    bom = b"\xef\xbb\xbf"
    assert chunks(bom + b"a\n" + bom + b"b\n") == [Chunk("a\n\ufeffb", True)]
    assert chunks(bom + b"1234567\n", bom + b"2345678\n") == [Chunk("1234567", True), Chunk("\ufeff2345678", True)]


def test_a_byte_that_may_begin_a_character_waits_for_the_next_block_and_no_other_does():
    waits = read_chunks(iter([b"12345678\xc0", b"9\n"]), SkippedRecords("part0.txt"))
    assert next(waits) == Chunk("12345678", False)
    with pytest.raises(DamagedShard, match="byte 8 of its text"):
        next(waits)
    for no_character in (b"\xbf", b"\xe2\x7f"):
        with pytest.raises(DamagedShard, match="byte 8 of its text"):
            next(read_chunks(iter([b"12345678" + no_character, b"9\n"]), SkippedRecords("part0.txt")))


def test_a_chunk_has_32_kib_of_text(monkeypatch):
    monkeypatch.undo()
    first, *_ = cut_lines(iter([b"1234567\n"] * 10_000))
    assert len(first) == 32 * 1024


def test_random_text_in_random_blocks_comes_out_whole():
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choices("a é€😀\n\r", k=generator.randrange(1, 40)))
        raw, complete = text.encode(), text if text.endswith("\n") else text + "\n"
        cuts = sorted(generator.choices(range(len(raw) + 1), k=4))
        blocks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        assert whole(chunks(*blocks)) == complete.replace("\r\n", "\n"), blocks


def test_a_line_that_is_not_utf8_is_skipped_and_the_others_stay():
    assert chunks(b"a\n\xff\nb\n", allowed=1) == [Chunk("a\nb", True)]
    assert chunks(b"\xff\n", allowed=1) == []


def test_a_bad_line_is_refused_with_its_place_in_the_text():
    with pytest.raises(ValueError, match=r"byte 4 of its text"):
        chunks(b"ab\n.\xff\n")
    with pytest.raises(ValueError, match=r"byte 13 of its text"):  # behind a byte order mark and another chunk
        chunks(b"\xef\xbb\xbf1234\n678\n", b"\n\xff\n")


def test_a_bad_byte_in_a_part_of_a_line_is_damage():
    with pytest.raises(DamagedShard, match="byte 9 of its text"):
        chunks(b"123456789\xff0", b"\n", allowed=10)
    with pytest.raises(DamagedShard, match="byte 12 of its text"):
        chunks(b"1234567890", b"ab\xff\n", allowed=10)
