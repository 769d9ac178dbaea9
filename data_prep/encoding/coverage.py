"""Can a tokenizer spell every text? If not, what becomes of the rest: an unknown token, or nothing at all.

A tokenizer spells every text if it has a token for each byte: byte-level BPE, or byte_fallback. Others replace what
they lack by their unknown token, which is counted. BPE without an unknown token drops it; that is an error here.
"""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from data_prep.encoding.encoder import Encoder
from data_prep.encoding.plain_bpe import byte_alphabet

MAX_LISTED = 5


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer can spell."""

    is_complete: bool  # it has a token for each byte
    missing_bytes: frozenset[int] | None  # of byte-level BPE; None for other models
    unknown_id: int | None  # replaces text without a token; None if there is no such id, or no such text

    @property
    def drops_text(self) -> bool:
        return not self.is_complete and self.unknown_id is None


def coverage(tokenizer: Tokenizer) -> Coverage:
    """Return what a tokenizer from `load_tokenizer` can spell."""
    description = json.loads(tokenizer.to_str())
    model, steps = description["model"], [description["normalizer"], description["pre_tokenizer"]]
    words = model["vocab"] if isinstance(model["vocab"], dict) else {token for token, _ in model["vocab"]}
    missing = None
    if any(_has_type(step, "ByteLevel") for step in steps if step):
        missing = frozenset(byte for character, byte in byte_alphabet().items() if character not in words)
    falls_back = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in words for byte in range(256))
    is_complete = bool(falls_back) or missing == frozenset()
    unknown = model["unk_id"] if "unk_id" in model else tokenizer.token_to_id(model["unk_token"] or "")
    return Coverage(is_complete, missing, None if is_complete else unknown)


class LossCheckedEncoder:
    """Encodes with `encoder`; ValueError for texts of which the tokenizer would drop characters other than spaces."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer):
        self._encoder, self._tokenizer = encoder, tokenizer
        self._missing_bytes = coverage(tokenizer).missing_bytes
        self._spelled: set[str] = set()  # characters that were tried before

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode."""
        new = set().union(*texts) - self._spelled
        lost = {character for character in new if not character.isspace() and self._is_lost(character)}
        if lost:
            raise ValueError(_describe(lost, texts))
        self._spelled |= new
        return self._encoder.encode(texts)

    def _is_lost(self, character: str) -> bool:
        if self._missing_bytes is not None:
            normalizer = self._tokenizer.normalizer
            text = normalizer.normalize_str(character) if normalizer else character
            return not self._missing_bytes.isdisjoint(text.encode(errors="replace"))
        once, twice = (self._encoder.encode([text])[0].tolist() for text in (character, 2 * character))
        return once == twice  # a marker of the text's start may be all that there is


def _describe(lost: set[str], texts: list[str]) -> str:
    counts = Counter(character for text in texts for character in text if character in lost)
    listed = ", ".join(f"{character!r} ({count:,} times)" for character, count in counts.most_common(MAX_LISTED))
    return (
        f"the tokenizer has no token for {len(lost):,} of the text's characters and would drop them silently: "
        f"{counts.total():,} of {sum(map(len, texts)):,} characters, such as {listed}; "
        "use a tokenizer with tokens for all bytes, or with an unknown token"
    )


def _has_type(step: dict, name: str) -> bool:
    inner = step.get("pretokenizers") or step.get("normalizers") or []
    return step["type"] == name or any(_has_type(each, name) for each in inner)
