"""Sequences in shuffled order from a disk, of which no page is in memory yet."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data_prep.shards.manifest import make_manifest, read_manifest, write_manifest
from data_prep.shards.sequences import Sequences
from data_prep.shards.shard_writer import ShardWriter
from data_prep.shards.token_stream import SUFFIXES, TokenStream
from data_prep.shards.verified import state_of, write_stamp

CONTEXT_LENGTH, BATCH_SEQUENCES = 1024, 128
FIRST_SEQUENCES = 512  # a global batch of half a million tokens
COLD, VERIFIED = "cold", "cold_verified"  # folders


def write_cold_shards(folder: Path, *, num_bytes: int) -> None:
    """Repeat the tokens of <folder>/tokens to num_bytes in <folder>/cold, and link them, as verified, beside it."""
    source = TokenStream(folder / "tokens")
    tokens, manifest = source.read(0, source.num_tokens), source.manifest
    with ShardWriter(folder / COLD, "shard", vocab_size=manifest.vocab_size) as writer:
        for _ in range(-(-num_bytes // (len(tokens) * source.dtype.itemsize))):
            writer.write(tokens, document_ends=np.array([len(tokens)]))
    facts = {name: getattr(manifest, name) for name in ("tokenizer_digest", "vocab_size", "end_token", "end_token_id")}
    (folder / VERIFIED).mkdir()
    for suffix in SUFFIXES:
        os.link(folder / COLD / f"shard.{suffix}", folder / VERIFIED / f"shard.{suffix}")
    for copy in (COLD, VERIFIED):
        write_manifest(folder / copy, make_manifest([writer.shard], **facts))
    states = {"shard": state_of((folder / VERIFIED / "shard.bin").stat())}
    write_stamp(folder / VERIFIED, read_manifest(folder / VERIFIED), states)


def load_cold(folder: Path, *, num_sequences: int | None = None) -> Callable[[], int]:
    """Open the stream, and read batches of the first num_sequences in shuffled order, of all by default."""
    forget_pages(folder.iterdir())

    def run() -> int:
        sequences = Sequences(TokenStream(folder), context_length=CONTEXT_LENGTH)
        order = np.random.default_rng(0).permutation(sequences.num_sequences)[:num_sequences]
        batches = [order[first : first + BATCH_SEQUENCES] for first in range(0, len(order), BATCH_SEQUENCES)]
        return sum(sequences.read(batch)[:, 1:].size for batch in batches)

    return run


def forget_pages(paths: Iterable[Path]) -> None:
    """Drop the pages of files from memory; those that are on disk need no rights for that."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def bytes_read_from_disk() -> int:
    """Return the bytes that this process has made the disk read."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes")]
    return int(line.split()[1])
