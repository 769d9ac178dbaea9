"""ShardWriter: write one token shard, <name>.bin, <name>.idx and <name>.sum, and describe it for the manifest."""

from array import array
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data_prep.shards.block_sums import BLOCK_BYTES, BlockHasher
from data_prep.shards.manifest import Shard, token_dtype
from data_prep.shards.megatron_index import index_bytes, index_digest
from data_prep.storage.atomic_file import atomic_file, flush_to_disk

LONGEST_DOCUMENT = 2**31 - 1  # lengths are int32


class ShardWriter:
    """Write one token shard; its files appear under their names only when it is complete.

    Use it as `with ShardWriter(...) as writer: writer.write(ids, document_ends=ends)`; then `writer.shard` describes
    the shard.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        *,
        vocab_size: int,
        block_bytes: int = BLOCK_BYTES,
    ):
        self.folder, self.name, self.vocab_size = Path(folder), name, vocab_size
        self.dtype = token_dtype(vocab_size)
        self.num_tokens = 0
        self.shard: Shard | None = None
        self._lengths = array("i")  # 4 bytes per document
        self._end_of_last = 0  # tokens of the complete documents
        self._blocks = BlockHasher(block_bytes)

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as files:  # entered first, renamed last: <name>.idx
            self._index = files.enter_context(atomic_file(self.folder / f"{self.name}.idx"))
            self._sums = files.enter_context(atomic_file(self.folder / f"{self.name}.sum"))
            self._tokens = files.enter_context(atomic_file(self.folder / f"{self.name}.bin"))
            self._files = files.pop_all()
        return self

    def add_document(self, ids: list[int] | np.ndarray) -> None:
        """Append one whole document, including its end token; see write()."""
        self.write(np.asarray(ids, dtype=np.int64), document_ends=np.array([len(ids)]))

    def write(self, ids: np.ndarray, *, document_ends: np.ndarray) -> None:
        """Append tokens [n], including end tokens; documents end at document_ends in them, the last may continue.

        ValueError for an id outside the vocabulary, and for a document that is too long for the .idx.
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
            sums, sums_xxh3 = self._blocks.finish()
            self._sums.write(sums)
            for file in (self._index, self._sums):
                flush_to_disk(file)  # a full disk shows here, before any file has its name
        self.shard = self._describe(index_digest(index), sums_xxh3)

    def _describe(self, index_xxh3: str, sums_xxh3: str) -> Shard:
        return Shard(
            name=self.name,
            num_tokens=self.num_tokens,
            num_documents=len(self._lengths),
            block_bytes=self._blocks.block_bytes,
            sums_xxh3=sums_xxh3,
            index_xxh3=index_xxh3,
        )
