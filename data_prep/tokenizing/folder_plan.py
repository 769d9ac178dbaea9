"""The plan of a folder: the raw shards, or byte ranges of large ones, whose documents each token shard holds."""

import argparse
import math
from dataclasses import dataclass

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawFile, RawShard

SHARD_BYTES = 10**9  # a token shard holds raw shards of about 1 GB of tokens, and at least one
# A small corpus still keeps 64 processes busy: its token shards are a 64th of it, but hold at least 16 MiB.
NUM_SHARDS, SMALLEST_SHARD_BYTES = 64, 2**24
BYTES_PER_TOKEN = 4  # of English text
# Bytes of text per byte of a compressed file, about; of English text at the tools' default levels.
EXPANSION = {"gz": 2.6, "bz2": 3.5, "xz": 3.5, "zst": 2.8, "parquet": 1.7}
NAME_BYTES = 100  # of a raw shard in the name of a token shard: with suffixes, a file system takes 255
SHARD_BYTES_HELP = "expected size of a token shard (default: a 64th of the tokens, from 16 MiB to 1e9)"


def shard_bytes_of(text: str) -> int:
    """Return "1e9" as 1,000,000,000 bytes; ArgumentTypeError for what is no whole number of at least 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number >= 1 and number.is_integer()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 1e9")
    return int(number)


@dataclass(frozen=True)
class PlannedShard:
    """A token shard, and the raw shards whose documents it holds, in order."""

    name: str
    raw_shards: tuple[RawShard, ...]

    @property
    def num_bytes(self) -> int:
        return sum(raw_shard.num_bytes for raw_shard in self.raw_shards)


def plan_shards(
    raw_shards: list[RawShard],
    rules: DocumentRules,
    *,
    token_size: int,
    shard_bytes: int | None = None,
    first_number: int = 0,
) -> list[PlannedShard]:
    """Join small raw shards and cut large ones into token shards, in the order of `raw_shards`.

    It is a function of the raw shards and their sizes alone. token_size: bytes per token. shard_bytes: expected size of
    a token shard. Numbers in names keep the order and tell equal names apart: "00003-en-00000".
    """
    total = sum(expected_bytes(raw_shard, token_size) for raw_shard in raw_shards)
    shard_bytes = shard_bytes or min(SHARD_BYTES, max(SMALLEST_SHARD_BYTES, total // NUM_SHARDS))
    text_bytes = max(1, shard_bytes * BYTES_PER_TOKEN // token_size)
    pieces = [piece for raw_shard in raw_shards for piece in _cut(raw_shard, text_bytes, rules)]
    groups = _join(pieces, [expected_bytes(piece, token_size) for piece in pieces], shard_bytes)
    return [
        PlannedShard(f"{number:05d}-{_short(group[0].name)}", tuple(group))
        for number, group in enumerate(groups, start=first_number)
    ]


def expected_bytes(raw_shard: RawShard, token_size: int) -> int:
    """Return the expected size of a raw shard's tokens."""
    expansion = 1.0
    if isinstance(raw_shard, RawFile):
        for suffix in raw_shard.path.name.lower().split("."):
            expansion = max(expansion, EXPANSION.get(suffix, 1.0))
    return int(raw_shard.num_bytes * expansion) * token_size // BYTES_PER_TOKEN


def _short(name: str) -> str:
    """Return the beginning of a name, whole characters of UTF-8 only."""
    return name.encode(errors="ignore")[:NAME_BYTES].decode(errors="ignore")


def _cut(raw_shard: RawShard, text_bytes: int, rules: DocumentRules) -> list[RawShard]:
    return raw_shard.cut(text_bytes, rules) if isinstance(raw_shard, RawFile) else [raw_shard]


def _join(pieces: list[RawShard], sizes: list[int], shard_bytes: int) -> list[list[RawShard]]:
    """Group neighbours up to shard_bytes. A part of a data set stays alone: its size may be unknown."""
    groups: list[list[RawShard]] = []
    room = -1  # of the last group
    for piece, size in zip(pieces, sizes, strict=True):
        is_file = isinstance(piece, RawFile)
        if not is_file or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(piece)
        room = room - size if is_file else -1
    return groups
