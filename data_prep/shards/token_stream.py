"""TokenStream: a folder of token shards, read as one stream of tokens.

A shard is Megatron's IndexedDataset: <name>.bin holds only tokens, so nanoGPT can map it, and <name>.idx says where
documents begin. manifest.json lists the shards and the digests of their blocks, so that damage is never read as tokens.
The folder also holds a copy of its tokenizer.
"""

from pathlib import Path

import numpy as np

from data_prep.shards.blocks import CheckedTokens
from data_prep.shards.manifest import Shard, read_manifest
from data_prep.shards.megatron_index import index_size, read_lengths


class TokenStream:
    """The tokens of a folder of shards as one stream, memory-mapped; it can be sent to other processes.

    The first read of a block of a .bin, and every read of an .idx, compares its digest. ValueError names the file, the
    bytes and both digests, or an id that is not below the manifest's vocab_size. Damage in blocks that are never read
    raises nothing.
    """

    def __init__(self, folder: str | Path):
        """Open every shard of the manifest; FileNotFoundError or ValueError if one is missing or has the wrong size."""
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        self._shards = [self._open(shard) for shard in self.manifest.shards]
        self._starts = np.cumsum([0] + [len(tokens) for tokens in self._shards])  # [num_shards + 1]

    def __reduce__(self):
        return TokenStream, (self.folder,)  # a copy maps the files itself instead of carrying their tokens

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
        shard, num_read = int(np.searchsorted(self._starts, start, side="right")) - 1, 0
        while num_read < len(out):
            offset = start + num_read - int(self._starts[shard])
            part = self._shards[shard].read(offset, offset + len(out) - num_read)
            out[num_read : num_read + len(part)] = part
            shard, num_read = shard + 1, num_read + len(part)

    def shard_tokens(self, shard: int, start: int = 0, end: int | None = None) -> np.ndarray:
        """Return the tokens start..end-1 of shard number `shard`, a view of its memory-mapped file."""
        return self._shards[shard].read(start, self.manifest.shards[shard].num_tokens if end is None else end)

    def documents(self, shard: int) -> np.ndarray:
        """Return the starts of the documents of shard number `shard`, and its end: int64 [num_documents + 1]."""
        entry = self.manifest.shards[shard]
        path = self.folder / f"{entry.name}.idx"
        lengths = read_lengths(path, num_documents=entry.num_documents, xxh3=entry.index_xxh3)
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def _open(self, shard: Shard) -> CheckedTokens:
        path = self.folder / f"{shard.name}.bin"
        check_size(path, shard.num_tokens * self.dtype.itemsize)
        check_size(self.folder / f"{shard.name}.idx", index_size(shard.num_documents))
        return CheckedTokens(path, shard, self.dtype, vocab_size=self.manifest.vocab_size)


def check_size(path: Path, num_bytes: int) -> None:
    """Raise FileNotFoundError or ValueError if a file of the manifest is missing or has the wrong size."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in the manifest but missing; copy it here or tokenize again")
    found = path.stat().st_size
    if found != num_bytes:
        raise ValueError(f"{path} has {found} bytes but the manifest says {num_bytes}; copy it or tokenize again")
