"""Random texts from whatever tokenizers disagree on: whitespace, contractions, marks, surrogates, long words."""

import random

WHITESPACE = [*" \n\t\r\x0b\x0c\x1c\x1f\x85\xa0\u2028\u3000", "  ", "\n\n", "\r\n", " \n", "   "]
WORDS = ["'s", "'re", "'ve", "'m", "'ll", "'t", "'d", "'", "'S", "a", "the", "The", "hello", "x" * 40, "<|endoftext|>"]
NUMBERS = ["1", "2024", "\uff12", "\xbd", "\u2167", "\u0663"]
SIGNS = [*".,-!\0\x7f\u200b\ufeff\ufffd\u0301\u0903", "...", "\u201c", "\u4e2d", "\u6587\u5b57", "\u01c5", "e\u0301"]
EMOJI = ["\U0001f600", "\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"]
KINDS = [WHITESPACE, WORDS, NUMBERS, SIGNS, EMOJI]


def nasty_texts(num_texts: int, *, seed: int, surrogates: bool = True) -> list[str]:
    """Return texts of 0 to 59 parts; every fourth text has characters of all Unicode planes."""
    random_ = random.Random(seed)
    return [_text(random_, planes=number % 4 == 0, surrogates=surrogates) for number in range(num_texts)]


def _text(random_: random.Random, *, planes: bool, surrogates: bool) -> str:
    parts = []
    for _ in range(random_.randrange(60)):
        part = random_.choice(random_.choice(KINDS))
        if planes and random_.random() < 0.3:
            part = chr(random_.randrange(0x110000))
        if surrogates and random_.random() < 0.002:
            part = random_.choice(["\ud800", "\udfff", "\ud83d\ude00"])
        parts.append(part)
    text = "".join(parts)
    return text if surrogates else text.encode(errors="ignore").decode()
