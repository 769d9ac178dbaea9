"""Count how often each token occurs in folders of token shards: `python -m data_prep.count_tokens DIR`."""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import xxhash

from data_prep.command_line import user_errors_in_one_line
from data_prep.counts import Counts, write_counts
from data_prep.token_shards import TokenStream

CHUNK_TOKENS = 2**20  # 2 MiB of uint16: stays in the processor's cache


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    output = arguments.output or _default_output(arguments.folders)
    counts = count_folders(arguments.folders)
    write_counts(output, counts)
    num_seen = np.count_nonzero(counts.counts)
    print(f"{counts.num_tokens:,} tokens, {num_seen:,} of {counts.vocab_size:,} token ids occur -> {output}")


def count_folders(folders: list[str | Path]) -> Counts:
    """Count the tokens of all folders together; ValueError where their tokenizers differ."""
    streams = [TokenStream(folder) for folder in folders]
    for stream in streams[1:]:
        _check_same_tokenizer(streams[0], stream)
    manifest = streams[0].manifest
    counts = np.zeros(manifest.vocab_size, dtype=np.int64)
    for stream in streams:
        for shard in range(len(stream.manifest.shards)):
            counts += count_shard(stream, shard)
    return Counts(counts, manifest.tokenizer_digest, _joint_digest(streams))


def count_shard(stream: TokenStream, shard: int) -> np.ndarray:
    """Return int64 [vocab_size]; ValueError for ids outside the vocabulary and for a shard with a wrong checksum."""
    vocab_size = stream.manifest.vocab_size
    tokens = stream.shard_tokens(shard)
    counts = np.zeros(vocab_size, dtype=np.int64)
    checksum = xxhash.xxh3_128()
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens[start : start + CHUNK_TOKENS]
        checksum.update(np.ascontiguousarray(chunk))
        lowest, highest = int(chunk.min()), int(chunk.max())
        if lowest < 0 or highest >= vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"{_name(stream, shard)} holds token id {wrong}, but vocab_size is {vocab_size}: damaged")
        counts += np.bincount(chunk, minlength=vocab_size)
    _check_checksum(stream, shard, checksum.hexdigest())
    return counts


def _check_checksum(stream: TokenStream, shard: int, found: str) -> None:
    expected = stream.manifest.shards[shard].xxh3
    if found != expected:
        raise ValueError(
            f"{_name(stream, shard)} has checksum {found} but the manifest says {expected}: "
            "damaged; copy it again or tokenize again"
        )


def _check_same_tokenizer(first: TokenStream, other: TokenStream) -> None:
    if first.manifest.tokenizer_digest != other.manifest.tokenizer_digest:
        raise ValueError(
            f"{first.folder} was tokenized with {first.manifest.tokenizer_digest} but {other.folder} with "
            f"{other.manifest.tokenizer_digest}; count them apart or tokenize them alike"
        )


def _joint_digest(streams: list[TokenStream]) -> str:
    """One folder keeps its digest; several get the digest of their digests, in the order given."""
    digests = [stream.manifest.corpus_digest for stream in streams]
    return digests[0] if len(digests) == 1 else "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _name(stream: TokenStream, shard: int) -> str:
    return f"{stream.folder / stream.manifest.shards[shard].name}.bin"


def _default_output(folders: list[str]) -> Path:
    if len(folders) > 1:
        raise ValueError(f"{len(folders)} folders are given; say with --output where their joint counts go")
    return Path(folders[0]) / "counts.safetensors"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.count_tokens", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder written by data_prep.tokenize_shards")
    parser.add_argument("--output", help="counts file to write (default: DIR/counts.safetensors)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
