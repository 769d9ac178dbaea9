"""The end token, which follows every document: the user's choice, or the tokenizer's own end of sequence."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.encoding.tokenizer import END_TOKEN

# Files in which Hugging Face names eos_token, as a text or as {"content": text, ...}.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
MAX_LISTED = 12


def find_end_token(folder: str | Path, tokenizer: Tokenizer, chosen: str | None = None) -> str:
    """Return the end token of the tokenizer that `load_tokenizer(folder)` returned.

    It is `chosen`, else eos_token of the tokenizer's settings, else <|endoftext|>. ValueError if the tokenizer lacks
    it, or if text could become it, which would be a false border of documents.
    """
    end_token = own_end_token(folder) or END_TOKEN if chosen is None else chosen
    id_ = tokenizer.token_to_id(end_token)
    if id_ is None:
        raise ValueError(f"{folder} has no token {end_token!r} to end documents with; {_candidates(tokenizer)}")
    for text in (end_token, f" {end_token}", f"a{end_token}b"):
        if id_ in _ids(tokenizer, text):
            raise ValueError(
                f"the text {text!r} would become the end token {end_token!r} of {folder}, a false border of documents; "
                f"{_candidates(tokenizer)}"
            )
    return end_token


def own_end_token(folder: str | Path) -> str | None:
    """Return eos_token of the tokenizer's settings; None if they name none."""
    for name in SETTINGS:
        path = Path(folder) / name
        found = _settings(path).get("eos_token") if path.is_file() else None
        text = found.get("content") if isinstance(found, dict) else found
        if isinstance(text, str) and text:
            return text
    return None


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # bare, from a tokenizer that cannot spell this text
        return []


def _settings(path: Path) -> dict:
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}, not a JSON object")
    return settings


def _candidates(tokenizer: Tokenizer) -> str:
    """Advise which of the special tokens to name."""
    added = tokenizer.get_added_tokens_decoder()
    special = [added[id_].content for id_ in sorted(added) if added[id_].special]
    if not special:
        return "it has no special tokens: add one to added_tokens in tokenizer.json and name it with --end_token"
    listed = ", ".join(map(repr, special[:MAX_LISTED])) + (", ..." if len(special) > MAX_LISTED else "")
    return f"name one of its special tokens with --end_token: {listed}"
