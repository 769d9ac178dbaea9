"""Count how often each token, or another hash key, occurs in token shards: `python -m data_prep.count_tokens DIR`.

Under an MPI launcher the ranks divide the tokens: `mpirun -n N python -m data_prep.count_tokens DIR`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.counts.counts_file import Counts, write_counts
from data_prep.counts.hash_keys import COUNTED_AS, num_keys, route_keys
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks, divide, find_ranks, ranks_end_together
from data_prep.processes.worker_pool import worker_pool
from data_prep.shards.contexts import read_contexts
from data_prep.shards.mixture import Mixture, read_mixtures, scaled
from data_prep.shards.token_stream import TokenStream

CHUNK_TOKENS = 2**20  # 2 MiB of uint16: stays in the processor's cache
SHARES_PER_WORKER = 16  # so that processes end at about the same time


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    output = arguments.output or _default_output(arguments.folders, hash_key=arguments.hash_key)
    counts = count_folders(
        arguments.folders,
        hash_key=arguments.hash_key,
        vocab_size=arguments.vocab_size,
        num_buckets=arguments.num_buckets,
        context_length=arguments.context_length,
        num_workers=arguments.workers,
        ranks=ranks,
    )
    if ranks.rank > 0:  # rank 0 has the sum
        return
    write_counts(output, counts)
    num_seen = np.count_nonzero(counts.counts)
    what = "token ids" if counts.hash_key == "token" else f"{counts.hash_key} keys"
    print(f"{counts.num_tokens:,} tokens, {num_seen:,} of {len(counts.counts):,} {what} occur -> {output}")


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
    """Count the keys of all folders, or mixtures of them, together; ValueError where their tokenizers differ.

    With `context_length` sequence i of a folder is its tokens [i * S, i * S + S), as in training; without it the
    whole folder is one context. A model's padded `vocab_size` changes the buckets of bigrams: give it here.
    Collective over `ranks`: each counts its shares with num_workers processes; the counts mean something on rank 0
    alone. Epochs multiply what all ranks have counted of a part, so that numbers are rounded alike however many
    ranks and processes there are.
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
    """Return int64 [parts, keys]: of shards where keys stay within them, else of runs of each part's stream."""
    counts = np.zeros((len(mixture.parts), num_keys(**options)), dtype=np.int64)
    if options["hash_key"] == "token":
        for part, shard in _share_of_shards(mixture, share, num_shares):
            of_shard = count_shard(mixture.streams[part], shard)
            counts[part, : len(of_shard)] += of_shard
    else:
        for part, stream in enumerate(mixture.streams):
            counts[part] = count_stream(stream, share=share, num_shares=num_shares, **options)
    return counts


def _share_of_shards(mixture: Mixture, share: int, num_shares: int) -> list[tuple[int, int]]:
    """Return the shards of all parts that belong to a share: (part, shard)."""
    shards = [(part, n) for part, stream in enumerate(mixture.streams) for n in range(len(stream.manifest.shards))]
    sizes = [mixture.streams[part].manifest.shards[n].num_tokens for part, n in shards]
    return [shards[number] for number in divide(sizes, num_shares)[share]]


def count_stream(
    stream: TokenStream, *, hash_key: str, context_length: int, share: int = 0, num_shares: int = 1, **options: int
) -> np.ndarray:
    """Return int64 [num_keys], the counts of a key that also depends on where a token stands, of one share."""
    counts = np.zeros(num_keys(hash_key, context_length=context_length, **options), dtype=np.int64)
    for tokens, lead in read_contexts(stream, context_length=context_length, share=share, num_shares=num_shares):
        keys = route_keys(tokens, hash_key=hash_key, context_length=context_length, **options)
        counts += np.bincount(keys[lead:], minlength=len(counts))
    return counts


def count_shard(stream: TokenStream, shard: int) -> np.ndarray:
    """Return int64 [vocab_size]; ValueError for a damaged block of the shard."""
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


def _default_output(folders: list[str], *, hash_key: str) -> Path:
    if len(folders) > 1:
        raise ValueError(f"{len(folders)} folders are given; say with --output where their joint counts go")
    folder = Path(folders[0])
    if folder.is_file():  # a mixture
        raise ValueError(f"{folder} is a file; say with --output where its counts go")
    return folder / ("counts.safetensors" if COUNTED_AS[hash_key] == "token" else f"counts_{hash_key}.safetensors")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.count_tokens", description=__doc__)
    add = parser.add_argument
    add("folders", nargs="+", metavar="DIR", help="folder of token shards, or a mixture (docs/data.md)")
    add("--hash_key", choices=sorted(COUNTED_AS), default="token", help="what the model will hash (default: token)")
    add("--num_buckets", type=int, default=0, help="for --hash_key bigram: number of buckets that bigrams share")
    add("--context_length", type=int, default=0, help="the model's; without it a folder is one context")
    add("--vocab_size", type=int, help="the model's padded vocabulary, e.g. 51200 (default: the tokenizer's)")
    add("--workers", type=int, default=1, help="processes, of each rank (default: 1)")
    add("--output", help="counts file to write (default: DIR/counts.safetensors, DIR/counts_KEY.safetensors)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
