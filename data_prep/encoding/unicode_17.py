"""Find texts with the letters and numbers that Unicode 17 added, which backends classify differently.

gigatoken 0.10 has the tables of Unicode 17; tokenizers 0.23 has older ones, in which they are unassigned, so the two
libraries split words at different places. They agree on every other character.
"""

import re

import numpy as np

RANGES = (
    *((0x88F, 0x88F), (0xC5C, 0xC5C), (0xCDC, 0xCDC), (0xA7CE, 0xA7D4), (0xA7F1, 0xA7F1), (0x10940, 0x10959)),
    *((0x10EC5, 0x10EC7), (0x11DB0, 0x11DE9), (0x16EA0, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF)),
    *((0x18D09, 0x18D1E), (0x18D80, 0x18DF2), (0x1E6C0, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD)),
    (0x323B0, 0x33479),
)
CHARACTERS = [chr(code) for first, last in RANGES for code in range(first, last + 1)]
NEW = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in RANGES) + "]")


def ids_of_parts(ids: dict[bytes, int]) -> np.ndarray:
    """Return, per id, whether its token can hold the first byte of such a character (bool [highest id + 1])."""
    whole = [character.encode() for character in CHARACTERS]
    parts = {character[:length] for character in whole for length in range(1, len(character))}
    is_part = np.zeros(max(ids.values()) + 1, bool)
    for token, id_ in ids.items():
        is_part[id_] = any(token[-length:] in parts for length in (1, 2, 3)) or NEW.search(
            token.decode(errors="ignore")
        )
    return is_part


def indices_of_texts(texts: list[str], lengths: np.ndarray, is_part: np.ndarray) -> list[int]:
    """Return the indices of the texts with such a character.

    lengths: number of ids per text. is_part: bool, of the ids of all texts, concatenated.
    """
    places = np.flatnonzero(is_part)
    numbers = np.unique(np.searchsorted(np.cumsum(lengths), places, side="right")).tolist()
    return [number for number in numbers if NEW.search(texts[number])]
