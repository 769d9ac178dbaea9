"""Hash keys: the number under which a route table is looked up at each position of a sequence.

Roller et al. (2021, section 3.1) hash the current token, the previous one, both (bigrams), the position, and as upper
bounds the next token and a prediction of it. Keys are int64 in 0..num_keys-1; models/hash_keys.py is the same in torch.
"""

import numpy as np

MAX_VOCAB_SIZE = 2**24  # some sixty times the largest vocabularies in use
KEYS = ("token", "previous", "bigram", "position", "next", "predicted")
# key -> the key whose counts stand for it: every token is the next one of some position.
COUNTED_AS = {key: key for key in KEYS} | {"next": "token", "predicted": "token"}


def num_keys(hash_key: str, *, vocab_size: int, num_buckets: int = 0, context_length: int = 0) -> int:
    """Return the number of different keys; ValueError if `hash_key` needs an option that is missing."""
    if hash_key not in KEYS:
        raise ValueError(f"key {hash_key!r} is unknown; choose one of {', '.join(KEYS)}")
    check_vocab_size(vocab_size)
    if hash_key == "bigram" and num_buckets < 1:
        raise ValueError(f"key bigram with num_buckets={num_buckets}: give the number of buckets with --num_buckets")
    if hash_key == "position" and context_length < 1:
        raise ValueError(f"key position with context_length={context_length}: give it with --context_length")
    sizes = {"previous": vocab_size + 1, "bigram": num_buckets, "position": context_length}
    return sizes.get(hash_key, vocab_size)


def check_vocab_size(vocab_size: int) -> None:
    """Raise ValueError for a vocabulary that no model has: it would take all memory."""
    if not 1 <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(f"vocab_size={vocab_size:,} is not in 1..{MAX_VOCAB_SIZE:,}; give the model's --vocab_size")


def route_keys(
    tokens: np.ndarray,
    *,
    hash_key: str,
    vocab_size: int,
    num_buckets: int = 0,
    context_length: int = 0,
    future: np.ndarray | None = None,
) -> np.ndarray:
    """Return the key of each of `tokens` [..., S], int64 of the same shape.

    The last axis is one context, or with `context_length` several, one after the other; the first token of a context
    has no previous one. Keys next and predicted need those tokens as `future`, of the shape of `tokens`.
    """
    if hash_key == "token":
        return tokens.astype(np.int64, copy=False)
    if hash_key == "previous":
        return previous_tokens(tokens, vocab_size=vocab_size, context_length=context_length)
    if hash_key == "bigram":
        previous = previous_tokens(tokens, vocab_size=vocab_size, context_length=context_length)
        return bigram_buckets(previous, tokens, vocab_size=vocab_size, num_buckets=num_buckets)
    if hash_key == "position":
        return np.broadcast_to(positions(tokens.shape[-1], context_length=context_length), tokens.shape)
    if hash_key in ("next", "predicted"):
        if future is None or future.shape != tokens.shape:
            found = "none" if future is None else f"some of shape {future.shape}"
            raise ValueError(f"key {hash_key} needs the {hash_key} tokens of shape {tokens.shape}, got {found}")
        return future.astype(np.int64)
    raise ValueError(f"key {hash_key!r} is unknown; choose one of {', '.join(KEYS)}")


def previous_tokens(tokens: np.ndarray, *, vocab_size: int, context_length: int = 0) -> np.ndarray:
    """Return the token before each one, int64; id `vocab_size` stands for none."""
    previous = np.empty(tokens.shape, dtype=np.int64)
    previous[..., 1:] = tokens[..., :-1]
    previous[..., :: context_length or max(tokens.shape[-1], 1)] = vocab_size
    return previous


def positions(length: int, *, context_length: int = 0) -> np.ndarray:
    """Return the position of each of `length` tokens in its context, int64 [length]."""
    return np.arange(length) % (context_length or max(length, 1))


def document_positions(tokens: np.ndarray, *, end_token_id: int) -> np.ndarray:
    """Return the position of each of `tokens` [..., S] in its document, int64: 0 at the start of S and after an end."""
    index = np.arange(tokens.shape[-1])
    begins = np.zeros(tokens.shape, dtype=np.int64)
    begins[..., 1:] = np.where(tokens[..., :-1] == end_token_id, index[1:], 0)
    return index - np.maximum.accumulate(begins, axis=-1)


def bigram_buckets(previous: np.ndarray, tokens: np.ndarray, *, vocab_size: int, num_buckets: int) -> np.ndarray:
    """Return mix64(previous * (vocab_size + 1) + current) modulo num_buckets, in unsigned arithmetic."""
    pair = previous.astype(np.uint64) * np.uint64(vocab_size + 1) + tokens.astype(np.uint64)
    return (mix64(pair) % np.uint64(num_buckets)).astype(np.int64)


def mix64(values: np.ndarray) -> np.ndarray:
    """Splitmix64's finaliser on uint64: every bit of the result depends on every bit of the value.

    With torch's int64, products and xors give the same bits; x >> n needs & ((1 << (64 - n)) - 1) after it, and the
    unsigned remainder m % n is ((m >> 1 & (2^63 - 1)) % n * 2 + (m & 1)) % n.
    """
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
