"""Pieces: whole documents, and parts of long ones, cut so that the parts have the same ids as the whole."""

from collections.abc import Callable

from data_prep.documents.document_rules import Parts

PIECE_CHARACTERS = 2**20  # * 100 bytes while they are encoded = 100 MB
# 4 million characters without a place to cut are not language: the text is cut there anyway, to bound memory.
LONGEST_WORD = 4 * PIECE_CHARACTERS


def cut_documents(parts: Parts, last_cut: Callable[[str], int] | None) -> Parts:
    """Join parts of documents into pieces (text, whether it ends its document); skip documents without text.

    last_cut: returns the last place where a text may be cut, 0 if there is none; if it is None, no document is cut.
    The places depend on the document's text alone, not on how it was divided into parts.
    """
    pending, num_characters, is_cut = [], 0, False
    enough = PIECE_CHARACTERS  # the number of characters at which to look for a place to cut
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
    """Return the pieces of `text` that later text cannot change, and the rest of it."""
    pieces, start = [], 0
    while last_cut and (length := _length_of_piece(text, start, last_cut)):
        pieces.append(text[start : start + length])
        start += length
    return [*pieces, text[start:]]


def _length_of_piece(text: str, start: int, last_cut: Callable[[str], int]) -> int:
    """Return the length of the piece at `start`; 0 if it stays whole, or if more text is needed to decide."""
    for length in range(PIECE_CHARACTERS, LONGEST_WORD + 1, PIECE_CHARACTERS):
        if len(text) - start <= length:
            return 0
        cut = last_cut(text[start : start + length])
        if cut:
            return cut
    return LONGEST_WORD
