"""Find where a text can be cut so that its pieces, encoded separately, have the ids of the whole."""

import json
import re

from tokenizers import Tokenizer

from data_prep.encoding.plain_bpe import differences_in_cutting

WINDOW = 4096  # characters per search

# In GPT-2's pattern no word continues into whitespace: whitespace after another character always begins a new word.
# Python's \S excludes everything that the pattern counts as whitespace, and \x1c to \x1f.
FIRST_CUT = re.compile(r"\S(?=[ \n])")
LAST_CUT = re.compile(r"(?s:.*)\S(?=[ \n])")


def can_be_cut(tokenizer: Tokenizer) -> bool:
    """Whether `last_cut` is valid for a tokenizer from `load_tokenizer`: it must split words as GPT-2 does."""
    description = json.loads(tokenizer.to_str())
    return not any(differences_in_cutting(tokenizer, description)) and not description["model"].get("dropout")


def last_cut(text: str) -> int:
    """Return the last i > 0 at which a space or newline follows a non-whitespace character; 0 if there is none.

    The ids of text[:i] followed by those of text[i:] are the ids of the whole, whatever text is appended to it.
    """
    end = len(text)
    while end > 1:
        start = max(0, end - WINDOW)
        found = LAST_CUT.match(text, start, end)
        if found:
            return found.end()
        end = start + 1  # the first character of this window may be the space
    return 0


def first_cut(text: str) -> int:
    """Return the first i at which `last_cut` could cut; len(text) if there is none."""
    found = FIRST_CUT.search(text)
    return found.end() if found else len(text)
