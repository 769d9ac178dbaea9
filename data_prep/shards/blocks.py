"""The .bin of a token shard: read where it is needed, and compared with its digests before a token is handed out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.shards.block_sums import PAGE_BLOCKS, BlockSums, block_digests
from data_prep.shards.manifest import Shard, check_listed, check_size
from data_prep.shards.verified import FileState, state_of
from data_prep.storage.open_files import OpenFile


class CheckedTokens:
    """The tokens of one open .bin; every id that it returns is within 0..vocab_size-1.

    Each read compares the blocks that it touches with their digests, unless the file is known to have been verified:
    ValueError if one has changed since it was written. ValueError too for an id outside the vocabulary.
    """

    def __init__(
        self, path: Path, shard: Shard, dtype: np.dtype, *, vocab_size: int, verified: FileState | None = None
    ):
        """verified: the state of the file that verification read; None if it was never verified.

        FileNotFoundError or ValueError if the file is missing or has the wrong size.
        """
        self.path, self.dtype, self.vocab_size, self.num_tokens = path, dtype, vocab_size, shard.num_tokens
        self._num_bytes = shard.num_tokens * dtype.itemsize
        check_listed(path)
        self._file = OpenFile(path)
        check_size(path, self._file.num_bytes, self._num_bytes)
        is_verified = state_of(self._file.status) == verified
        self._check = None if is_verified else BlockCheck(path, shard, num_bytes=self._num_bytes)

    def will_need(self, start: int, end: int) -> None:
        """Let the disk start to read the tokens start..end-1, as far as they are in this file."""
        size = self.dtype.itemsize
        self._file.will_need(start * size, (min(end, self.num_tokens) - start) * size)

    def read(self, start: int, end: int) -> np.ndarray:
        """Return the tokens start..end-1, fewer if the file ends earlier."""
        size, end = self.dtype.itemsize, min(end, self.num_tokens)
        if start >= end:
            return np.empty(0, self.dtype)
        tokens = np.frombuffer(self._read_bytes(start * size, end * size), self.dtype)
        check_ids(self.path, tokens, vocab_size=self.vocab_size)
        return tokens

    def _read_bytes(self, start: int, end: int) -> bytes | memoryview:
        """Return the bytes start..end-1 of the file, from blocks that have their digests."""
        if self._check is None:
            return self._file.read(start, end - start)
        length = self._check.block_bytes
        first, last = start // length, -(-end // length)
        content = self._file.read(first * length, min(last * length, self._num_bytes) - first * length)
        damage = self._check.damage(content, first=first)
        if damage:
            raise ValueError(damage[0])
        return memoryview(content)[start - first * length : end - first * length]


class BlockCheck:
    """Compares blocks of a .bin with the digests in the .sum beside it, and those with the manifest."""

    def __init__(self, path: Path, shard: Shard, *, num_bytes: int):
        """num_bytes: of the .bin. FileNotFoundError or ValueError if its .sum is missing or not what was written."""
        self.path, self.block_bytes = path, shard.block_bytes
        self.num_blocks = -(-num_bytes // shard.block_bytes)
        sums = path.with_name(f"{shard.name}.sum")
        self._sums = BlockSums(sums, num_blocks=self.num_blocks, xxh3=shard.sums_xxh3)

    def damage(self, content: bytes, *, first: int) -> list[str]:
        """Return a sentence per damaged block of `content`, which starts with block number `first`."""
        found = block_digests(content, self.block_bytes)
        written = self._sums.digests(first, first + len(found) // 4)
        if found == written:
            return []
        pairs = zip(np.frombuffer(found, "<u4").tolist(), np.frombuffer(written, "<u4").tolist(), strict=True)
        end = first * self.block_bytes + len(content)
        return [self._sentence(first + n, end, *pair) for n, pair in enumerate(pairs) if len(set(pair)) == 2]

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number of its first block, content) of the file's pieces in order, unchecked."""
        with open(self.path, "rb") as file:
            for first in range(0, self.num_blocks, PAGE_BLOCKS):
                yield first, file.read(PAGE_BLOCKS * self.block_bytes)

    def _sentence(self, block: int, end: int, found: int, written: int) -> str:
        start = block * self.block_bytes
        last = min(start + self.block_bytes, end) - 1
        return (
            f"{self.path} is damaged: bytes {start}..{last} have digest {found:08x} but were written with "
            f"{written:08x}; copy it again or tokenize again"
        )


def check_ids(path: Path, tokens: np.ndarray, *, vocab_size: int) -> None:
    """Raise ValueError if one of `tokens` is not an id of the vocabulary; `tokens` must not be empty."""
    highest, lowest = int(tokens.max()), 0 if tokens.dtype.kind == "u" else int(tokens.min())
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"{path} holds token id {wrong}, but vocab_size={vocab_size} in its manifest; tokenize again")
