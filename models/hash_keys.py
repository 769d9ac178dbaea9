"""Hash keys: the part of a token's context that is hashed, half of each hash of Roller et al. (2021, section 3.1).

The other half is the table that maps a key to an expert. data_prep/counts/hash_keys.py computes the same keys in
numpy.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenContext:
    """The context of each token that hashes may read, int64 [B, S]; `next` and `predicted` are None if unknown.

    previous: the token before, or the id `none` at the beginning of a text.
    next: the token to be predicted (oracle future). predicted: a baseline model's guess of it.
    """

    current: torch.Tensor
    previous: torch.Tensor
    position: torch.Tensor
    next: torch.Tensor | None = None
    predicted: torch.Tensor | None = None


def token_context(
    input_ids: torch.Tensor,
    *,
    none: int,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    num_cached: int = 0,
    previous_ids: torch.Tensor | None = None,
    next_ids: torch.Tensor | None = None,
    predicted_ids: torch.Tensor | None = None,
) -> TokenContext:
    """The context of input_ids [B, S]; arguments that are not given are derived from them.

    position_ids that restart at 0 within a sequence begin a new document there, which is independent of the one before.
    """
    if previous_ids is None:
        previous_ids = previous_tokens(input_ids, attention_mask, position_ids, none=none)
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0) + num_cached
    return TokenContext(input_ids, previous_ids, position_ids.expand_as(input_ids), next_ids, predicted_ids)


def previous_tokens(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    *,
    none: int,
) -> torch.Tensor:
    """The token before each of input_ids [B, S]; `none` for the first, at position 0, and after padding (mask 0)."""
    previous = torch.full_like(input_ids, none)
    # Tokens that joined the vocabulary after the tables were built have ids from `none` upwards: no table knows them.
    previous[:, 1:] = input_ids[:, :-1].clamp(max=none)
    if attention_mask is not None and attention_mask.dim() == 2:
        before = attention_mask[:, -input_ids.shape[1] :][:, :-1]
        previous[:, 1:] = previous[:, 1:].masked_fill(before == 0, none)
    return previous if position_ids is None else previous.masked_fill(position_ids == 0, none)


def hash_keys(hash_key: str, context: TokenContext, *, none: int, num_buckets: int) -> torch.Tensor:
    """The key of each token, int64 [B, S]. ValueError if the context lacks the ids that the key needs."""
    if hash_key == "bigram":
        return bigram_buckets(context.previous, context.current, none=none, num_buckets=num_buckets)
    keys = {
        "token": context.current,
        "previous": context.previous,
        "position": context.position,
        "next": context.next,
        "predicted": context.predicted,
    }[hash_key]
    if keys is None:
        raise ValueError(_MISSING[hash_key])
    return keys


_MISSING = {
    "next": "oracle future hash layers route by the token to be predicted: pass next_ids (or labels). "
    "Generation has no such token, so these models cannot generate; they are an upper bound, not a language model",
    "predicted": "predicted future hash layers route by a baseline model's prediction: pass predicted_ids, or give "
    "the model a baseline with set_predictor(model)",
}


def bigram_buckets(
    previous: torch.Tensor, current: torch.Tensor, *, none: int, num_buckets: int
) -> torch.Tensor:  # fmt: skip
    """mix64(previous * (none + 1) + current) modulo num_buckets, in unsigned 64-bit arithmetic."""
    mixed = _mix64(previous * (none + 1) + current)
    # torch has no unsigned remainder: take the upper 63 bits first, then the last one.
    return (((mixed >> 1) & (2**63 - 1)) % num_buckets * 2 + (mixed & 1)) % num_buckets


def _mix64(values: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 on int64: products wrap as unsigned ones do, right shifts need a mask."""
    values = values ^ ((values >> 30) & (2**34 - 1))
    values = values * (0xBF58476D1CE4E5B9 - 2**64)
    values = values ^ ((values >> 27) & (2**37 - 1))
    values = values * (0x94D049BB133111EB - 2**64)
    return values ^ ((values >> 31) & (2**33 - 1))
