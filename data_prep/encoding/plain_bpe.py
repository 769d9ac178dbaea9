"""Read a tokenizer of GPT-2's kind as bytes and merges; report how any other tokenizer differs from GPT-2's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

# Fields of a BPE model that would change ids; GPT-2 leaves them empty.
EMPTY_FIELDS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


@dataclass(frozen=True)
class PlainBpe:
    """Byte-level BPE that splits words as GPT-2 does; ids follow the order of merges, so both give the same ranks."""

    ids: dict[str, int]  # token -> id, for the tokens that text can produce; each character of a token spells a byte
    merges: list[tuple[str, str]]  # pairs of tokens, in the order in which they are merged

    def ids_of_bytes(self) -> dict[bytes, int]:
        """Return `ids` with each token as the bytes that it spells."""
        alphabet = byte_alphabet()
        return {bytes(alphabet[character] for character in token): id_ for token, id_ in self.ids.items()}


def plain_bpe(tokenizer: Tokenizer) -> PlainBpe:
    """Return the tokens and merges of a tokenizer from `load_tokenizer`; ValueError names what differs from GPT-2."""
    description = json.loads(tokenizer.to_str())
    model = description["model"]
    _refuse(differences_in_cutting(tokenizer, description))
    _refuse(_differences_of_model(model))
    merges = [(left, right) for left, right in model["merges"]]
    bpe = PlainBpe({token: model["vocab"][token] for token in [*byte_alphabet(), *map("".join, merges)]}, merges)
    _refuse(_differences_of_merging(tokenizer, bpe))
    return bpe


def differences_in_cutting(tokenizer: Tokenizer, description: dict) -> Iterator[str]:
    """Yield what differs from GPT-2 in the way that text is split into words; `description` is the tokenizer's JSON."""
    normalizer, words = description["normalizer"], description["pre_tokenizer"] or {"type": "none"}
    if normalizer is not None:
        yield f"has a normalizer, {normalizer['type']}"
    if words["type"] != "ByteLevel" or not words["use_regex"]:
        yield f"splits words by the pre-tokenizer {_name(words)}, not by GPT-2's pattern"
    elif words["add_prefix_space"]:
        yield "puts a space before each text (add_prefix_space)"
    for token in description["added_tokens"]:
        if not (token["special"] and tokenizer.encode_special_tokens):
            yield f"finds its added token {token['content']!r} in text"


def _name(step: dict) -> str:
    inner = step.get("pretokenizers", [])
    settings = "" if step.get("use_regex", True) else " without use_regex"
    return step["type"] + settings + (f" of {', '.join(map(_name, inner))}" if inner else "")


def byte_alphabet() -> dict[str, int]:
    """Return GPT-2's spelling of bytes: printable bytes as themselves, all others as the characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _refuse(differences: Iterator[str]) -> None:
    for difference in differences:
        raise ValueError(difference)


def _differences_of_model(model: dict) -> Iterator[str]:
    if model["type"] != "BPE":
        yield f"is a {model['type']} model, not BPE"
        return
    for name in EMPTY_FIELDS:
        if model[name] not in (None, "", False):
            yield f"has {name}={model[name]!r}"
    for character, byte in byte_alphabet().items():
        if character not in model["vocab"]:
            yield f"has no token for byte {byte}"
    last = -1
    for left, right in model["merges"]:
        id_ = model["vocab"][left + right]
        if id_ <= last:
            yield f"merges {left!r} and {right!r} to id {id_} after id {last}: its merges are not in the order of ids"
        last = id_


def _differences_of_merging(tokenizer: Tokenizer, bpe: PlainBpe) -> Iterator[str]:
    """Yield each token that the tokenizer does not produce from the token's own bytes.

    If there is none, a backend may merge any two neighbours whose concatenation is a token, instead of listed pairs.
    Proof: suppose that a text tells the two rules apart. Take the first step that concatenates two parts to a token
    although the pair is not listed. Nothing else has happened between the borders of that token, so its own bytes
    would end as two parts.
    """
    for token, id_ in bpe.ids.items():
        ids = [part.id for part in tokenizer.model.tokenize(token)]
        if ids != [id_]:
            yield f"encodes its own token {token!r}, id {id_}, as ids {ids}"
