"""Blocks of a .bin file: each is hashed as it is written, and checked, with its token ids, before its first read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from data_prep.shards.manifest import Shard

# xxh3 reads 8 MiB in less than a millisecond; 16 digits per block add 3 MB of manifest per TB of tokens.
BLOCK_BYTES = 2**23


class BlockHasher:
    """Collects the xxh3-64 of each block of a file that is written piece by piece."""

    def __init__(self, block_bytes: int):
        self.block_bytes = block_bytes
        self._digests: list[str] = []
        self._hash, self._num_bytes = xxhash.xxh3_64(), 0  # of the current block

    def update(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            part = rest[: self.block_bytes - self._num_bytes]
            self._hash.update(part)
            self._num_bytes += len(part)
            if self._num_bytes == self.block_bytes:
                self._end_block()
            rest = rest[len(part) :]

    def digests(self) -> tuple[str, ...]:
        """End the file and return the digests of all blocks, 16 hex digits each."""
        if self._num_bytes:
            self._end_block()
        return tuple(self._digests)

    def _end_block(self) -> None:
        self._digests.append(self._hash.hexdigest())
        self._hash, self._num_bytes = xxhash.xxh3_64(), 0


class CheckedTokens:
    """The tokens of one .bin, memory-mapped; every id that it returns is within 0..vocab_size-1.

    A block is checked once, before its first token is returned: ValueError if the block has changed since it was
    written, or holds an id outside the vocabulary.
    """

    def __init__(self, path: Path, shard: Shard, dtype: np.dtype, *, vocab_size: int):
        self.path, self.shard, self.dtype, self.vocab_size = path, shard, dtype, vocab_size
        empty = shard.num_tokens == 0  # an empty file cannot be mapped
        self._tokens = np.empty(0, dtype) if empty else np.memmap(path, dtype, mode="r")
        self._bytes = self._tokens.view(np.uint8)
        self._is_checked = bytearray(len(shard.block_xxh3))

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, end: int) -> np.ndarray:
        """Return the tokens start..end-1 as a view of the file, fewer if the file ends earlier."""
        end = min(end, len(self))
        self._check_blocks(start * self.dtype.itemsize, end * self.dtype.itemsize)
        return self._tokens[start:end]

    def _check_blocks(self, start: int, end: int) -> None:
        """Check the blocks of the bytes start..end-1, except those that were checked before."""
        length, size = self.shard.block_bytes, self.dtype.itemsize
        for block in range(start // length, -(-end // length)):
            if not self._is_checked[block]:
                first, last = block * length, (block + 1) * length
                check_block(self.path, self.shard, block, self._bytes[first:last])
                check_ids(self.path, self._tokens[first // size : -(-last // size)], vocab_size=self.vocab_size)
                self._is_checked[block] = True


def check_block(path: Path, shard: Shard, block: int, content: np.ndarray | bytes) -> None:
    """Raise ValueError if `content` is not what was written as block number `block` of `path`."""
    found, written = xxhash.xxh3_64_hexdigest(content), shard.block_xxh3[block]
    if found != written:
        start = block * shard.block_bytes
        raise ValueError(
            f"{path} is damaged: bytes {start}..{start + len(content) - 1} have digest {found} but were written with "
            f"{written}; copy it again or tokenize again"
        )


def check_ids(path: Path, tokens: np.ndarray, *, vocab_size: int) -> None:
    """Raise ValueError if one of `tokens` is not an id of the vocabulary; `tokens` must not be empty."""
    highest, lowest = int(tokens.max()), 0 if tokens.dtype.kind == "u" else int(tokens.min())
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"{path} holds token id {wrong}, but vocab_size={vocab_size} in its manifest; tokenize again")


def read_blocks(path: Path, shard: Shard) -> Iterator[bytes]:
    """Yield the blocks of `path`, unchecked; a disk that cannot be read raises OSError."""
    with open(path, "rb") as file:
        while content := file.read(shard.block_bytes):
            yield content
