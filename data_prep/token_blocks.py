"""Blocks of a .bin file: their digests are made while it is written, and compared when a block is first touched."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from data_prep.manifest import Shard

# xxh3 reads 8 MiB in less than a millisecond; 16 digits for each are 3 MB of manifest per TB of tokens.
BLOCK_BYTES = 2**23


class BlockHasher:
    """Collect the xxh3-64 of each block of a file that is written piece by piece."""

    def __init__(self, block_bytes: int):
        self.block_bytes = block_bytes
        self._digests: list[str] = []
        self._hash, self._num_bytes = xxhash.xxh3_64(), 0  # of the block that is being filled

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
        """Return the digests of all blocks, 16 hex digits each; the file ends here."""
        if self._num_bytes:
            self._end_block()
        return tuple(self._digests)

    def _end_block(self) -> None:
        self._digests.append(self._hash.hexdigest())
        self._hash, self._num_bytes = xxhash.xxh3_64(), 0


class CheckedTokens:
    """The tokens of one .bin, memory-mapped; ValueError where one is read from a block that is not as it was written.

    A block is compared with its digest once, before its first token is handed out.
    """

    def __init__(self, path: Path, shard: Shard, dtype: np.dtype):
        self.path, self.shard, self.dtype = path, shard, dtype
        empty = shard.num_tokens == 0  # an empty file cannot be mapped
        self._tokens = np.empty(0, dtype) if empty else np.memmap(path, dtype, mode="r")
        self._bytes = self._tokens.view(np.uint8)
        self._is_checked = bytearray(len(shard.block_xxh3))

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, end: int) -> np.ndarray:
        """Return tokens start..end-1 as a part of the map, fewer where it ends before."""
        end = min(end, len(self))
        self._check_blocks(start * self.dtype.itemsize, end * self.dtype.itemsize)
        return self._tokens[start:end]

    def _check_blocks(self, start: int, end: int) -> None:
        """Compare the blocks that hold the bytes start..end-1, but for those that were compared before."""
        length = self.shard.block_bytes
        for block in range(start // length, -(-end // length)):
            if not self._is_checked[block]:
                check_block(self.path, self.shard, block, self._bytes[block * length : (block + 1) * length])
                self._is_checked[block] = True


def check_block(path: Path, shard: Shard, block: int, content: np.ndarray | bytes) -> None:
    """Raise ValueError where `content` is not what was written as block number `block` of `path`."""
    found, written = xxhash.xxh3_64_hexdigest(content), shard.block_xxh3[block]
    if found != written:
        start = block * shard.block_bytes
        raise ValueError(
            f"{path} is damaged: bytes {start}..{start + len(content) - 1} have digest {found} but were written with "
            f"{written}; copy it again or tokenize again"
        )


def read_blocks(path: Path, shard: Shard) -> Iterator[bytes]:
    """Yield the blocks of `path` as they are, unchecked; a disk that cannot be read is an OSError here."""
    with open(path, "rb") as file:
        while content := file.read(shard.block_bytes):
            yield content
