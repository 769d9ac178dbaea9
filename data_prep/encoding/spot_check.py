"""Compare the ids of a fast backend with those of the tokenizers library, on a sample of the ids."""

from bisect import bisect_left
from itertools import accumulate

import numpy as np

from data_prep.encoding.encoder import Encoder
from data_prep.encoding.plain_bpe import PlainBpe
from data_prep.encoding.safe_cuts import first_cut, last_cut

# The reference takes 0.1 ms for 24 ids on their own; gigatoken takes 3 ms for a batch of 1 MiB, about 240,000 ids.
WINDOW = 24  # ids per comparison
STRIDE_BITS = 19
STRIDE = 2**STRIDE_BITS  # ids per window: 1 id in 21,845 is compared; the start of each 1 MiB batch adds 1 in 10,000
LARGEST_WINDOW = 64 * WINDOW  # limit of a window in which there is no safe place to cut
FACTORS = np.array([0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F, 0xA0761D6478BD642F], np.uint64)
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))  # of UTF-8


class SpotCheckedEncoder:
    """Encodes with `fast`; ValueError if a sample of its ids differs from those of `reference`."""

    def __init__(self, fast: Encoder, reference: Encoder, *, backend: str, bpe: PlainBpe):
        self._fast, self._reference, self._backend = fast, reference, backend
        self._bytes = {id_: token for token, id_ in bpe.ids_of_bytes().items()}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode."""
        ids, lengths = self._fast.encode(texts)
        ends = np.cumsum(lengths)
        for number, position in sample(ids, lengths):
            self._compare(texts[number], ids[ends[number] - lengths[number] : ends[number]], position)
        return ids, lengths

    def _compare(self, text: str, ids: np.ndarray, position: int) -> None:
        """Compare the ids of a piece of the text; if they differ, compare all its ids, which may take long."""
        if self._agrees(text, ids, position):
            return
        expected, _ = self._reference.encode([text])
        if not np.array_equal(ids, expected):
            raise ValueError(self._difference(ids, expected))

    def _agrees(self, text: str, ids: np.ndarray, position: int) -> bool:
        """Whether the ids from `position` on spell a piece of the text, and the reference gives it the same ids."""
        num_ids = WINDOW
        piece, piece_ids = self._piece(ids, position, num_ids)
        while not piece and num_ids < min(LARGEST_WINDOW, len(ids)):
            num_ids *= 8
            piece, piece_ids = self._piece(ids, position, num_ids)
        if not piece:
            return not text or len(ids) > LARGEST_WINDOW  # nothing to compare
        is_end = position + num_ids >= len(ids)
        return _has(text, piece, position == 0, is_end) and self._reference.encode([piece])[0].tolist() == piece_ids

    def _piece(self, ids: np.ndarray, position: int, num_ids: int) -> tuple[str, list[int]]:
        """Return the longest text that can safely be cut out of ids[position : position + num_ids], and its ids."""
        window = ids[position : position + num_ids].tolist()
        tokens = [self._bytes.get(id_, b"?") for id_ in window]
        data = b"".join(tokens)
        num_skipped = len(data) - len(data.lstrip(CONTINUATION_BYTES))  # bytes of a character that began earlier
        text = data[num_skipped:].decode(errors="ignore")
        begin = first_cut(text) if position else 0
        end = len(text) if position + num_ids >= len(ids) else last_cut(text)
        borders = [0, *accumulate(map(len, tokens))]
        first = bisect_left(borders, num_skipped + len(text[:begin].encode()))
        last = bisect_left(borders, num_skipped + len(text[:end].encode()))
        return text[begin:end], window[first:last]

    def _difference(self, ids: np.ndarray, expected: np.ndarray) -> str:
        """Describe the first ids that differ, and the text around them."""
        length = min(len(ids), len(expected))
        at = int(np.append(ids[:length] != expected[:length], True).argmax())
        shown = slice(max(0, at - 4), at + 5)
        text = b"".join(self._bytes[id_] for id_ in expected[shown].tolist()).decode(errors="replace")
        return (
            f"--backend {self._backend} gives ids {ids[shown].tolist()} where the tokenizers library gives "
            f"{expected[shown].tolist()}, around the text {text!r}; use --backend tokenizers"
        )


def _has(text: str, piece: str, is_start: bool, is_end: bool) -> bool:
    if is_start:
        return text == piece if is_end else text.startswith(piece)
    return text.endswith(piece) if is_end else piece in text


def sample(ids: np.ndarray, lengths: np.ndarray) -> list[tuple[int, int]]:
    """Choose the windows to compare, as pairs (index of a text, position among its ids).

    They are the start of the first text, every text without ids, and in each text one position per STRIDE ids. The
    first of these positions is a hash of the text's own ids, so it does not depend on workers and batches.
    """
    chosen = [(number, 0) for number in [*range(len(lengths))[:1], *np.flatnonzero(lengths == 0).tolist()]]
    full = np.flatnonzero(lengths)
    ends = np.cumsum(lengths)[full]
    begins, lengths = ends - lengths[full], lengths[full]
    features = np.array([lengths, ids[begins], ids[(begins + ends) // 2], ids[ends - 1]], np.uint64)
    starts = FACTORS @ features >> np.uint64(64 - STRIDE_BITS)  # the highest bits depend on all bits
    for at in np.flatnonzero(starts < lengths).tolist():
        chosen += [(int(full[at]), position) for position in range(int(starts[at]), int(lengths[at]), STRIDE)]
    return chosen
