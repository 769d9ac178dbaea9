"""The token file format: write token shards, and read a folder of them as one stream of tokens.

A shard is Megatron's IndexedDataset: <name>.bin holds the tokens and nothing else (nanoGPT reads it as it is),
<name>.idx says where documents begin. manifest.json lists the shards and the digests of their blocks, so that damage is
never read as tokens; the folder carries its tokenizer along.
"""

from array import array
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data_prep.shards.blocks import BLOCK_BYTES, BlockHasher, CheckedTokens
from data_prep.shards.manifest import Manifest, Shard, read_manifest, token_dtype
from data_prep.shards.megatron_index import index_bytes, index_digest, index_size, read_lengths
from data_prep.storage.atomic_file import atomic_file, flush_to_disk

__all__ = ["Manifest", "Shard", "ShardWriter", "TokenStream", "read_manifest", "token_dtype"]

LONGEST_DOCUMENT = 2**31 - 1  # lengths are int32


class ShardWriter:
    """Write one token shard; its files appear under their names only when it is complete.

    Use it as `with ShardWriter(...) as writer: writer.write(ids, document_ends=ends)`; then `writer.shard` describes
    the shard. skipped: what was left out of it, as the caller notes it until the end.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        *,
        source: str,
        vocab_size: int,
        skipped: list[str] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ):
        self.folder, self.name, self.source, self.vocab_size = Path(folder), name, source, vocab_size
        self.skipped = [] if skipped is None else skipped
        self.dtype = token_dtype(vocab_size)
        self.num_tokens = 0
        self.shard: Shard | None = None
        self._lengths = array("i")  # 4 bytes per document
        self._end_of_last = 0  # tokens of the documents that are complete
        self._blocks = BlockHasher(block_bytes)

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as files:  # entered first, renamed last: <name>.idx
            self._index = files.enter_context(atomic_file(self.folder / f"{self.name}.idx"))
            self._tokens = files.enter_context(atomic_file(self.folder / f"{self.name}.bin"))
            self._files = files.pop_all()
        return self

    def add_document(self, ids: list[int] | np.ndarray) -> None:
        """Append one whole document, its end token included; see write()."""
        self.write(np.asarray(ids, dtype=np.int64), document_ends=np.array([len(ids)]))

    def write(self, ids: np.ndarray, *, document_ends: np.ndarray) -> None:
        """Append tokens [n], end tokens included; documents end at document_ends in them, the last one may go on.

        ValueError for an id outside the vocabulary, and a document that is too long for the .idx.
        """
        if len(ids) and not (0 <= ids.min() and ids.max() < self.vocab_size):
            raise ValueError(f"token ids {ids.min()}..{ids.max()} do not fit vocab_size={self.vocab_size}")
        content = ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
        self._tokens.write(content)
        self._blocks.update(content)
        self._end_documents(document_ends + self.num_tokens)
        self.num_tokens += len(ids)

    def _end_documents(self, ends: np.ndarray) -> None:
        """ends: in tokens of the shard."""
        lengths = np.diff(ends, prepend=self._end_of_last)
        if len(lengths) and lengths.max() > LONGEST_DOCUMENT:
            raise ValueError(f"a document of {lengths.max()} tokens exceeds {LONGEST_DOCUMENT}; split it")
        self._lengths.frombytes(lengths.astype(np.int32).tobytes())
        self._end_of_last = int(ends[-1]) if len(ends) else self._end_of_last

    def __exit__(self, kind, error, traceback) -> None:
        with self._files:  # removes the temporary files if anything is raised here
            if error is not None:
                raise error
            index = index_bytes(np.array(self._lengths, dtype=np.int32), dtype=self.dtype)
            self._index.write(index)
            flush_to_disk(self._index)  # a full disk shows here, before either file has its name
        self.shard = self._describe(index_digest(index))

    def _describe(self, index_xxh3: str) -> Shard:
        return Shard(
            name=self.name,
            source=self.source,
            num_tokens=self.num_tokens,
            num_documents=len(self._lengths),
            block_bytes=self._blocks.block_bytes,
            block_xxh3=self._blocks.digests(),
            index_xxh3=index_xxh3,
            skipped=tuple(self.skipped),
        )


class TokenStream:
    """The tokens of a folder of shards as one stream, memory-mapped; it can be sent to other processes.

    Every block of a .bin is compared with its digest when its first token is read, every .idx when it is read:
    ValueError names the file, the bytes and both digests, or an id that is not below the manifest's vocab_size.
    Damage where nothing is read stops nobody.
    """

    def __init__(self, folder: str | Path):
        """Open every shard of the manifest; FileNotFoundError or ValueError where one is missing or of another size."""
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
        """Return tokens start..start+length-1 of the stream as int64 [length], across borders of shards."""
        if not 0 <= start <= start + length <= self.num_tokens:
            raise ValueError(f"tokens {start}..{start + length} are not within the stream's 0..{self.num_tokens}")
        out = np.empty(length, dtype=np.int64)
        self.read_into(out, start)
        return out

    def read_into(self, out: np.ndarray, start: int) -> None:
        """Fill int64 `out` with the stream's tokens from `start` on, which must be as many."""
        shard, done = int(np.searchsorted(self._starts, start, side="right")) - 1, 0
        while done < len(out):
            offset = start + done - int(self._starts[shard])
            part = self._shards[shard].read(offset, offset + len(out) - done)
            out[done : done + len(part)] = part
            shard, done = shard + 1, done + len(part)

    def shard_tokens(self, shard: int, start: int = 0, end: int | None = None) -> np.ndarray:
        """Return tokens start..end-1 of shard number `shard`, as they lie in its memory-mapped file."""
        return self._shards[shard].read(start, self.manifest.shards[shard].num_tokens if end is None else end)

    def documents(self, shard: int) -> np.ndarray:
        """Return where the documents of shard number `shard` begin: int64 [num_documents + 1], the last is its end."""
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
    """Raise FileNotFoundError or ValueError where a file of the manifest is missing or of another size."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in the manifest but missing; copy it here or tokenize again")
    found = path.stat().st_size
    if found != num_bytes:
        raise ValueError(f"{path} has {found} bytes but the manifest says {num_bytes}; copy it or tokenize again")
