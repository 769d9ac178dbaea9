"""Load a tokenizer so that text can never become a special token, and identify it by its digest.

By default, a literal "<|endoftext|>" in a document would become the end token, a false document border.
"""

import hashlib
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

END_TOKEN = "<|endoftext|>"  # of GPT-2
MAX_ID = 2**24 - 1  # the tokenizers library walks through all ids up to the highest, and ends the process at 2**31


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a folder with tokenizer.json, or with GPT-2's vocab.json and merges.txt; ValueError for anything else.

    Special tokens in text are encoded as ordinary text. Pickling loses that setting: reload a Tokenizer instead.
    """
    folder = Path(path)
    if (folder / "tokenizer.json").is_file():
        tokenizer = _from_json(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = byte_level(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        tokenizer.add_special_tokens([END_TOKEN])
    else:
        raise ValueError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt; give the folder of a tokenizer"
        )
    _check_ids(tokenizer, folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return "sha256:<64 hex>" of everything that decides the ids: tokenizer.json without padding and truncation."""
    description = json.loads(tokenizer.to_str())
    description = {name: part for name, part in description.items() if name not in ("padding", "truncation")}
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def vocab_size(tokenizer: Tokenizer) -> int:
    """Return the highest id + 1; not every id below need exist."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can express and UTF-8 cannot, by U+FFFD; join surrogates that form a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def byte_level(model: models.Model) -> Tokenizer:
    """Wrap `model` in GPT-2's split of text into words and of words into bytes."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _check_ids(tokenizer: Tokenizer, folder: Path) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ValueError(f"{folder} holds a tokenizer without tokens; give another one")
    token = max(vocabulary, key=vocabulary.get)
    if vocabulary[token] > MAX_ID:
        raise ValueError(f"{folder} gives token {token!r} the id {vocabulary[token]}, above {MAX_ID}; number it lower")


def _from_json(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} cannot be loaded by the tokenizers library: {error}") from error
