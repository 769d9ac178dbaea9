"""Make a route table from counts: every hash_key, every method, any number of layers, hashes or choices."""

from dataclasses import replace

import numpy as np

from data_prep.counts.counts_file import Counts
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.shards.token_stream import TokenStream
from data_prep.tables.expert_load import expert_load, lower_bound
from data_prep.tables.heavy_split import split_in_turns
from data_prep.tables.methods import Recipe, check_method, make_table, make_turns, turn_experts
from data_prep.tables.route_table import HeavySplit, RouteTable
from data_prep.tables.split_tokens import count_bigrams, heavy_tokens, largest_part, split_heavy_tokens


def build_table(
    counts: Counts,
    num_experts: int,
    *,
    hash_key: str | None = None,
    method: str = "balanced",
    num_tables: int = 1,
    num_hashes: int = 1,
    top_k: int = 1,
    rotation_period: int = 1,
    seed: int = 0,
    ep_size: int = 1,
    embeddings: np.ndarray | None = None,
    split_stream: TokenStream | None = None,
    split_threshold: float = 1.0,
    context_length: int = 0,
) -> RouteTable:
    """Return `num_tables` tables over the keys of `counts` with their predicted load.

    `key` "next" or "predicted" reads counts of tokens as counts of that key. `embeddings` float [num_keys, width] are
    for the methods that cluster. `split_stream`, the counted tokens, splits those heavier than `split_threshold` experts;
    they are read in contexts of `context_length`, as in training. With `rotation_period` the experts take turns by position.
    """
    if num_tables < 1:
        raise ValueError(f"--num_tables {num_tables} must be at least 1: one table per sparse layer")
    hash_key = _checked_key(hash_key or counts.hash_key, counts)
    check_method(
        method,
        hash_key=hash_key,
        num_hashes=num_hashes,
        top_k=top_k,
        rotation_period=rotation_period,
        has_embeddings=embeddings is not None,
        split=split_stream is not None,
    )
    recipe = Recipe(counts.counts, num_experts, seed=seed, ep_size=ep_size, embeddings=embeddings)
    split = None
    if split_stream is not None:
        split, recipe = _without_heavy(recipe, counts, split_stream, split_threshold, context_length)
    layers = range(num_tables)
    if rotation_period > 1:
        made, split = _make_in_turns(recipe, method, split, layers=layers, rotation_period=rotation_period)
    else:
        made = [make_table(recipe, method, layer=layer, num_hashes=num_hashes, top_k=top_k) for layer in layers]
    tables, loads = zip(*made, strict=True)
    choices = num_hashes * top_k * rotation_period  # a key's tokens are divided among them
    return RouteTable(
        tables=np.stack(tables),
        num_experts=num_experts,
        method=method,
        seed=seed,
        ep_size=ep_size,
        hash_key=hash_key,
        vocab_size=counts.vocab_size,
        num_buckets=counts.num_buckets,
        context_length=counts.context_length or context_length,
        top_k=top_k,
        rotation_period=rotation_period,
        tokenizer_digest=counts.tokenizer_digest,
        corpus_digest=counts.corpus_digest,
        lower_bound=lower_bound(recipe.counts, num_experts, total=counts.num_tokens, choices=choices),
        load=np.stack(loads),
        split=split,
    )


def _make_in_turns(
    recipe: Recipe, method: str, split: HeavySplit | None, *, layers: range, rotation_period: int
) -> tuple[list, HeavySplit | None]:
    """The tables and loads of experts that take turns by position, and the split with its experts in turns."""
    experts_PE = turn_experts(recipe.num_experts, rotation_period, ep_size=recipe.ep_size)
    made = [make_turns(recipe, method, experts_PE, layer=layer) for layer in layers]
    return made, None if split is None else split_in_turns(split, experts_PE)


def with_vocab_size(counts: Counts, vocab_size: int | None) -> Counts:
    """Append ids that never occur: models pad their vocabulary (51200 = 50 * 1024 for GPT-2's 50257)."""
    if vocab_size is None or vocab_size == counts.vocab_size:
        return counts
    if vocab_size < counts.vocab_size:
        raise ValueError(
            f"--vocab_size {vocab_size} is smaller than the {counts.vocab_size} token ids that were counted; "
            f"give at least {counts.vocab_size}"
        )
    if counts.hash_key == "bigram":
        raise ValueError(
            f"the buckets of bigrams were counted for vocab_size={counts.vocab_size}, not {vocab_size}; "
            f"count again with --vocab_size {vocab_size}"
        )
    padded = counts.counts
    if counts.hash_key in ("token", "previous"):  # the last key of "previous" is "none" and stays last
        unseen = np.zeros(vocab_size - counts.vocab_size, dtype=np.int64)
        padded = np.insert(padded, counts.vocab_size, unseen)
    return replace(counts, counts=padded, vocab_size=vocab_size)


def _checked_key(hash_key: str, counts: Counts) -> str:
    if COUNTED_AS[hash_key] != counts.hash_key:
        raise ValueError(
            f"--hash_key {hash_key} needs counts of key {COUNTED_AS[hash_key]}, but these are of key {counts.hash_key}; "
            f"run data_prep.count_tokens --hash_key {COUNTED_AS[hash_key]}"
        )
    return hash_key


def _without_heavy(
    recipe: Recipe, counts: Counts, stream: TokenStream, split_threshold: float, context_length: int
) -> tuple[HeavySplit | None, Recipe]:
    """Return the split of the heavy tokens, and what is left for the table."""
    tokens_H = heavy_tokens(counts.counts, recipe.num_experts, split_threshold=split_threshold)
    if len(tokens_H) == 0:
        return None, recipe
    most = largest_part(counts.counts, recipe.num_experts, split_threshold=split_threshold)
    bigrams_HP = count_bigrams(stream, tokens_H, vocab_size=counts.vocab_size, context_length=context_length)
    split_table, position_table, load_E = split_heavy_tokens(
        counts.counts, bigrams_HP, recipe.num_experts, most=most, ep_size=recipe.ep_size
    )
    split_index = np.full(counts.vocab_size, -1, dtype=np.int32)
    split_index[tokens_H] = np.arange(len(tokens_H))
    light = counts.counts.copy()
    light[tokens_H] = 0
    split = HeavySplit(split_index, split_table, position_table)
    start_load_E = expert_load(split.start_experts, bigrams_HP[:, -1], recipe.num_experts)
    return split, replace(recipe, counts=light, base_load_E=load_E, start_load_E=start_load_E)
