"""Count the hash keys of token shards, divided over processes and MPI ranks."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.counts.counts_file import Counts
from data_prep.counts.hash_keys import COUNTED_AS, num_keys, route_keys
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks, divide
from data_prep.processes.worker_pool import worker_pool
from data_prep.shards.contexts import read_contexts
from data_prep.shards.mixture import Mixture, read_mixtures, scaled
from data_prep.shards.token_stream import TokenStream

CHUNK_TOKENS = 2**20  # 2 MiB of uint16: stays in the processor's cache
SHARES_PER_WORKER = 16  # so that processes finish at about the same time


def count_folders(
    folders: list[str | Path],
    *,
    hash_key: str = "token",
    vocab_size: int | None = None,
    num_buckets: int = 0,
    context_length: int = 0,
    num_workers: int = 1,
    ranks: MpiRanks = ONE_PROCESS,
) -> Counts:
    """Count the keys of all folders, or mixtures of them, together; ValueError if their tokenizers differ.

    With `context_length` S, sequence i of a folder is its tokens [i * S, i * S + S), as in training; without it, the
    whole folder is one context. Bigram buckets depend on the model's padded vocabulary: give it as `vocab_size`.
    Collective over `ranks`: each rank counts its shares with `num_workers` processes, and rank 0 alone gets the sum.
    The epochs of a part multiply what all ranks have counted of it, so that rounding does not depend on the number of
    ranks and processes.
    """
    mixture = read_mixtures(folders)
    options = {
        "hash_key": COUNTED_AS.get(hash_key, hash_key),
        "vocab_size": _padded_vocab_size(vocab_size, mixture.vocab_size),
        "num_buckets": num_buckets if hash_key == "bigram" else 0,
        "context_length": context_length if COUNTED_AS.get(hash_key) != "token" else 0,
    }
    counts = np.zeros((len(mixture.parts), num_keys(**options)), dtype=np.int64)
    num_shares = num_workers * SHARES_PER_WORKER
    shares = range(ranks.rank * num_shares, (ranks.rank + 1) * num_shares)
    count = partial(_count_share, mixture, num_shares=ranks.world_size * num_shares, options=options)
    for of_share in _in_processes(count, shares, num_workers=num_workers, is_shown=ranks.rank == 0):
        counts += of_share
    ranks.wait()
    return Counts(
        sum(map(scaled, ranks.sum(counts), mixture.epochs)), mixture.tokenizer_digest, mixture.corpus_digest, **options
    )


def _in_processes(
    count: Callable[[int], np.ndarray], shares: range, *, num_workers: int, is_shown: bool
) -> Iterator[np.ndarray]:
    """Yield the counts of each share, in order."""
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1")
    show = partial(tqdm, total=len(shares), desc="count", leave=False, disable=not (is_shown and sys.stderr.isatty()))
    if num_workers == 1:
        yield from show(map(count, shares))
        return
    with worker_pool(num_workers) as pool:
        yield from show(pool.map(count, shares))


def _count_share(mixture: Mixture, share: int, *, num_shares: int, options: dict) -> np.ndarray:
    """Return int64 [parts, keys]: a share of whole shards for key token, of each part's stream for other keys."""
    counts = np.zeros((len(mixture.parts), num_keys(**options)), dtype=np.int64)
    if options["hash_key"] == "token":
        for part, shard in _share_of_shards(mixture, share, num_shares):
            of_shard = _count_shard(mixture.streams[part], shard)
            counts[part, : len(of_shard)] += of_shard
    else:
        for part, stream in enumerate(mixture.streams):
            counts[part] = _count_stream(stream, share=share, num_shares=num_shares, **options)
    return counts


def _share_of_shards(mixture: Mixture, share: int, num_shares: int) -> list[tuple[int, int]]:
    """Return the (part, shard) pairs of a share."""
    shards = [(part, n) for part, stream in enumerate(mixture.streams) for n in range(len(stream.manifest.shards))]
    sizes = [mixture.streams[part].manifest.shards[n].num_tokens for part, n in shards]
    return [shards[number] for number in divide(sizes, num_shares)[share]]


def _count_stream(
    stream: TokenStream, *, hash_key: str, context_length: int, share: int, num_shares: int, **options: int
) -> np.ndarray:
    """Return int64 [num_keys] of one share, for keys that depend on a token's neighbours or position."""
    counts = np.zeros(num_keys(hash_key, context_length=context_length, **options), dtype=np.int64)
    for tokens, lead in read_contexts(stream, context_length=context_length, share=share, num_shares=num_shares):
        keys = route_keys(tokens, hash_key=hash_key, context_length=context_length, **options)
        counts += np.bincount(keys[lead:], minlength=len(counts))
    return counts


def _count_shard(stream: TokenStream, shard: int) -> np.ndarray:
    """Return int64 [vocab_size]; ValueError if a block of the shard is damaged."""
    vocab_size = stream.manifest.vocab_size
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, stream.manifest.shards[shard].num_tokens, CHUNK_TOKENS):
        counts += np.bincount(stream.shard_tokens(shard, start, start + CHUNK_TOKENS), minlength=vocab_size)
    return counts


def _padded_vocab_size(vocab_size: int | None, counted: int) -> int:
    if vocab_size is not None and vocab_size < counted:
        raise ValueError(
            f"--vocab_size {vocab_size} is smaller than the tokenizer's {counted}; give at least {counted}"
        )
    return vocab_size or counted
