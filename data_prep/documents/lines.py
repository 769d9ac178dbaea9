"""Lines of a .txt file, grouped into documents: between blank lines, or lines_per_document lines each."""

import re
from collections.abc import Iterator

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.text_chunks import Chunk
from data_prep.documents.wikitext import group_articles

LONGEST_WHITESPACE = 2**22  # characters at the start of a line, which memory holds
LONGEST_LINE = 2**28  # characters of a line of WikiText; a paragraph has some hundreds
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")  # possessive: a million blank lines need no memory


def group_lines(chunks: Iterator[Chunk], rules: DocumentRules, *, label: str) -> Parts:
    """Yield (text, whether it ends its document); memory holds one chunk, however long the lines are.

    ValueError, naming `label`, for a line that begins with more than LONGEST_WHITESPACE. "wikitext" holds a whole line,
    and refuses one above LONGEST_LINE.
    """
    if rules.document_rule == "wikitext":
        return group_articles(_whole_lines(chunks, label), rules.blank_line)
    if rules.document_rule == "line":
        return _every_n_lines(chunks, rules.lines_per_document)
    return _between_blank_lines(_with_whole_blank_lines(chunks, label), rules.blank_line)


def _between_blank_lines(chunks: Iterator[Chunk], blank_line: str) -> Parts:
    is_open = False  # whether the current document has text
    starts_line = True
    for chunk in chunks:
        *documents, rest = _BLANK_LINES.split("\n" + chunk.text if starts_line else chunk.text)
        for document in documents:
            text = document if is_open else document.removeprefix("\n")
            if text or is_open:
                yield text + blank_line, True
            is_open = False
        rest = "\n" + rest if documents else rest  # rest begins a line, which may be blank
        end = rest.rfind("\n") if chunk.ends_line else -1
        ends_document = end >= 0 and not rest[end:].strip()  # its last line is blank
        text = rest[:end] if ends_document else rest
        text = text if is_open else text.removeprefix("\n")
        if text or (is_open and ends_document):
            yield (text + blank_line, True) if ends_document else (text, False)
            is_open = not ends_document
        starts_line = chunk.ends_line


def _with_whole_blank_lines(chunks: Iterator[Chunk], label: str) -> Iterator[Chunk]:
    """Hold back whitespace at the start of a long line, until it is known whether the line has more than that."""
    held, num_held = [], 0  # parts of a line
    starts_line = True
    for chunk in chunks:
        if (starts_line or held) and not chunk.ends_line and not chunk.text.strip():
            held.append(chunk.text)
            num_held += len(chunk.text)
            if num_held > LONGEST_WHITESPACE:
                raise ValueError(f"{label} has a line that begins with {num_held} characters of whitespace; remove it")
            continue
        yield Chunk("".join([*held, chunk.text]), chunk.ends_line) if held else chunk
        held, num_held, starts_line = [], 0, chunk.ends_line


def _every_n_lines(chunks: Iterator[Chunk], num_lines: int) -> Parts:
    filled, starts_line = 0, True  # filled: lines of the current document, an unfinished last one included
    for text, ends_line in _lines(chunks):
        if starts_line and not text and ends_line:
            continue
        filled += starts_line
        prefix = "\n" if starts_line and filled > 1 else ""
        is_full = ends_line and filled == num_lines
        yield prefix + text, is_full
        filled, starts_line = (0 if is_full else filled), ends_line


def _whole_lines(chunks: Iterator[Chunk], label: str) -> Iterator[str]:
    held, num_held = [], 0  # parts of an unfinished line
    for text, ends_line in _lines(chunks):
        held.append(text)
        num_held += len(text)
        if num_held > LONGEST_LINE:
            raise ValueError(f"{label} has a line of more than {LONGEST_LINE} characters; divide or remove it")
        if ends_line:
            yield "".join(held)
            held, num_held = [], 0
    if held:
        yield "".join(held)


def _lines(chunks: Iterator[Chunk]) -> Parts:
    """Yield (text, whether it ends its line)."""
    for chunk in chunks:
        *whole, last = chunk.text.split("\n")
        for line in whole:
            yield line, True
        yield last, chunk.ends_line
