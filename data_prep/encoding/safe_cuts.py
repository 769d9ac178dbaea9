"""Find where a text may be cut so that its pieces, encoded apart, have the ids of the whole."""

import json
import re

from tokenizers import Tokenizer

from data_prep.encoding.plain_bpe import differences_in_cutting

WINDOW = 4096  # characters that are searched at a time

# No word of GPT-2's pattern goes on into whitespace, which begins a new one whatever stands around it.
# Python's \S leaves out all that the pattern counts as whitespace, and \x1c to \x1f.
FIRST_CUT = re.compile(r"\S(?=[ \n])")
LAST_CUT = re.compile(r"(?s:.*)\S(?=[ \n])")


def can_be_cut(tokenizer: Tokenizer) -> bool:
    """Say whether `last_cut` holds for a tokenizer of `load_tokenizer`: one that cuts words as GPT-2 does."""
    description = json.loads(tokenizer.to_str())
    return not any(differences_in_cutting(tokenizer, description)) and not description["model"].get("dropout")


def last_cut(text: str) -> int:
    """Return the last i > 0 where a space or newline follows a character that is no whitespace; 0 if there is none.

    The ids of text[:i] and of text[i:] are those of the whole, whatever is added to its end.
    """
    end = len(text)
    while end > 1:
        start = max(0, end - WINDOW)
        found = LAST_CUT.match(text, start, end)
        if found:
            return found.end()
        end = start + 1  # the last window's first character may be the space
    return 0


def first_cut(text: str) -> int:
    """Return the first such i; len(text) if there is none."""
    found = FIRST_CUT.search(text)
    return found.end() if found else len(text)
