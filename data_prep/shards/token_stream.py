"""TokenStream: a folder of token shards, read as one stream of tokens.

A shard is Megatron's IndexedDataset: <name>.bin holds only tokens, so nanoGPT can map it, and <name>.idx says where
documents begin. <name>.sum holds the digests of small blocks of <name>.bin, and manifest.json those of the other two,
so that damage is never read as tokens. The folder also holds a copy of its tokenizer.
"""

import os
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from data_prep.shards.blocks import CheckedTokens
from data_prep.shards.manifest import check_listed, check_size, read_manifest
from data_prep.shards.megatron_index import index_size, read_lengths
from data_prep.shards.verified import FileState, read_stamp
from data_prep.storage.open_files import RecentlyUsed

SUFFIXES = ("bin", "idx", "sum")
_OPEN_SHARDS: RecentlyUsed[CheckedTokens] = RecentlyUsed()  # of all streams of this process


class TokenStream:
    """The tokens of a folder of shards as one stream, of any number of files; it can be sent to other processes.

    A shard is opened, and its size compared, when it is first read. Every read compares the digests of an .idx and of
    the blocks of a .bin, unless the .bin has not changed since it was verified. ValueError names the file, the bytes
    and both digests, or an id that is not below the manifest's vocab_size. Damage in blocks that are never read raises
    nothing.
    """

    def __init__(self, folder: str | Path):
        """Read the manifest; FileNotFoundError if a file that it lists is missing."""
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        self._starts = list(accumulate((shard.num_tokens for shard in self.manifest.shards), initial=0))
        self._key = object()  # tells this stream's open shards from those of others
        self._check_presence()

    def __reduce__(self):
        return TokenStream, (self.folder,)  # a copy opens the files itself

    @property
    def num_tokens(self) -> int:
        return self.manifest.num_tokens

    def read(self, start: int, length: int) -> np.ndarray:
        """Return the tokens start..start+length-1 of the stream, across borders of shards: int64 [length]."""
        if not 0 <= start <= start + length <= self.num_tokens:
            raise ValueError(f"tokens {start}..{start + length} are not within the stream's 0..{self.num_tokens}")
        out = np.empty(length, dtype=np.int64)
        self.read_into(out, start)
        return out

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill int64 `out` with the tokens from `start` on; the stream must hold len(out) of them."""
        shard, num_read = bisect_right(self._starts, start) - 1, 0
        while num_read < len(out):
            offset = start + num_read - self._starts[shard]
            part = self._opened(shard).read(offset, offset + len(out) - num_read)
            out[num_read : num_read + len(part)] = part
            shard, num_read = shard + 1, num_read + len(part)

    def will_need(self, start: int, length: int) -> None:
        """Let the disk start to read from token `start` on, up to the end of its shard."""
        shard = bisect_right(self._starts, start) - 1
        offset = start - self._starts[shard]
        self._opened(shard).will_need(offset, offset + length)

    def shard_tokens(self, shard: int, start: int = 0, end: int | None = None) -> np.ndarray:
        """Return the tokens start..end-1 of shard number `shard`, in its own dtype and read-only."""
        return self._opened(shard).read(start, self.manifest.shards[shard].num_tokens if end is None else end)

    def documents(self, shard: int) -> np.ndarray:
        """Return the starts of the documents of shard number `shard`, and its end: int64 [num_documents + 1]."""
        entry = self.manifest.shards[shard]
        path = self.folder / f"{entry.name}.idx"
        check_listed(path)
        check_size(path, path.stat().st_size, index_size(entry.num_documents))
        lengths = read_lengths(path, num_documents=entry.num_documents, xxh3=entry.index_xxh3)
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def check_sizes(self) -> None:
        """Raise ValueError for a .bin of the wrong size now, before it is read; it takes an inquiry per file."""
        for shard in self.manifest.shards:
            path = self.folder / f"{shard.name}.bin"
            check_size(path, path.stat().st_size, shard.num_tokens * self.dtype.itemsize)

    def _opened(self, shard: int) -> CheckedTokens:
        return _OPEN_SHARDS.get((self._key, shard), lambda: self._open(shard))

    def _open(self, number: int) -> CheckedTokens:
        shard = self.manifest.shards[number]
        options = {"vocab_size": self.manifest.vocab_size, "verified": self._verified.get(shard.name)}
        return CheckedTokens(self.folder / f"{shard.name}.bin", shard, self.dtype, **options)

    @cached_property
    def _verified(self) -> dict[str, FileState]:
        return read_stamp(self.folder, self.manifest)

    def _check_presence(self) -> None:
        """One listing instead of an inquiry per file: on a shared disk each of those is a message to its server."""
        present = set(os.listdir(self.folder))
        names = (f"{shard.name}.{suffix}" for shard in self.manifest.shards for suffix in SUFFIXES)
        for missing in (name for name in names if name not in present):
            check_listed(self.folder / missing)
