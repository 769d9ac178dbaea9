"""Pieces: documents, the long ones cut where a tokenizer gives the same ids for the parts as for the whole."""

from collections.abc import Callable

from data_prep.documents.document_rules import Parts

PIECE_CHARACTERS = 2**20  # 100 bytes each while they are encoded = 100 MB
# Four MiB without a place to cut are no words: the text is cut there all the same, rather than held.
LONGEST_WORD = 4 * PIECE_CHARACTERS


def cut_documents(parts: Parts, last_cut: Callable[[str], int] | None) -> Parts:
    """Join parts of documents to pieces (text, whether it ends its document); documents without text are left out.

    last_cut: the last place where a text may be cut, 0 for none; without it no document is cut. Where a document is
    cut follows from its text alone, not from how it came in parts.
    """
    pending, num_characters, is_cut = [], 0, False
    enough = PIECE_CHARACTERS  # where it is next worth looking for a place to cut
    for text, ends_document in parts:
        pending.append(text)
        num_characters += len(text)
        if not ends_document and (last_cut is None or num_characters <= enough):
            continue
        *pieces, rest = _cut("".join(pending), last_cut)
        for piece in pieces:
            yield piece, False
        is_cut = is_cut or bool(pieces)
        if ends_document and (rest or is_cut):
            yield rest, True
        pending, num_characters = ([], 0) if ends_document else ([rest], len(rest))
        enough = max(-(-num_characters // PIECE_CHARACTERS), 1) * PIECE_CHARACTERS
        is_cut = is_cut and not ends_document
    if num_characters or is_cut:
        yield "".join(pending), True


def _cut(text: str, last_cut: Callable[[str], int] | None) -> list[str]:
    """Return the pieces of `text` that are certain, and what is left of it."""
    pieces, start = [], 0
    while last_cut and (length := _length_of_piece(text, start, last_cut)):
        pieces.append(text[start : start + length])
        start += length
    return [*pieces, text[start:]]


def _length_of_piece(text: str, start: int, last_cut: Callable[[str], int]) -> int:
    """Return 0 where the text from `start` on is to stay whole, or goes on too soon to know."""
    for length in range(PIECE_CHARACTERS, LONGEST_WORD + 1, PIECE_CHARACTERS):
        if len(text) - start <= length:
            return 0
        cut = last_cut(text[start : start + length])
        if cut:
            return cut
    return LONGEST_WORD
