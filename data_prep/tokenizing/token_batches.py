"""Batches of texts for an encoder, and the end tokens between their ids."""

from collections.abc import Iterator

import numpy as np

from data_prep.documents.document_rules import Parts

BATCH_CHARACTERS = 2**20  # about 250,000 tokens * 100 bytes while they are encoded = 25 MB


def with_ends(pieces: Parts, *, end_token_rule: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield (text, whether the end token follows it, whether it ends its document); with "fairseq", texts are lines."""
    for text, ends_document in pieces:
        *lines, last = text.split("\n") if end_token_rule == "fairseq" else [text]
        for line in lines:
            yield line, True, False
        yield last, ends_document, ends_document


def batches(pieces: Iterator[tuple[str, bool, bool]]) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Group texts into batches of BATCH_CHARACTERS; yield (texts, has_end, ends_document), one value per text each."""
    batch: list[tuple[str, bool, bool]] = []
    num_characters = 0
    for piece in pieces:
        batch.append(piece)
        num_characters += len(piece[0]) + 1  # an empty line counts too
        if num_characters >= BATCH_CHARACTERS:
            yield _columns(batch)
            batch, num_characters = [], 0
    if batch:
        yield _columns(batch)


def insert_end_tokens(
    ids: np.ndarray, lengths: np.ndarray, has_end: np.ndarray, end_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Insert the end token after each text that has one; return all ids, and the end of each text in them [texts].

    ids: [sum of lengths], of all texts, concatenated. lengths, has_end: [texts].
    """
    return np.insert(ids, np.cumsum(lengths)[has_end], end_id), np.cumsum(lengths + has_end)


def _columns(batch: list[tuple[str, bool, bool]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    texts, has_end, ends_document = zip(*batch, strict=True)
    return list(texts), np.array(has_end), np.array(ends_document)
