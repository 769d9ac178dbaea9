"""Token ids for the benchmark, drawn from a corpus or from Zipf's law, and the table that routes them."""

from pathlib import Path

import numpy as np
import torch

from data_prep.counts.counts_file import read_counts
from data_prep.shards.token_stream import TokenStream
from data_prep.tables.assignments import balanced_table
from data_prep.tables.route_table_file import read_route_table


class TokenSource:
    """Draws token ids, counts them, and builds a table for them; `description` names their source.

    Without a folder, id k has probability ~ 1 / (k + 2): the most frequent id takes 5%, like the comma in novels.
    """

    def __init__(self, folder: str | None, *, vocab_size: int, seed: int):
        self.seed = seed
        self.stream = TokenStream(folder) if folder else None
        self.vocab_size = self.stream.manifest.vocab_size if folder else vocab_size
        self.description = (
            f"sequences drawn from {folder}" if folder else f"{vocab_size} ids drawn from Zipf's law, seed {seed}"
        )

    def draw(self, num_sequences: int, length: int, *, rank: int) -> torch.Tensor:
        """Token ids int64 [num_sequences, length] of this rank, the same at every call."""
        generator = np.random.Generator(np.random.Philox([self.seed, rank]))
        if self.stream is None:
            ids = generator.choice(self.vocab_size, (num_sequences, length), p=self._zipf())
        else:
            starts = generator.integers(self.stream.num_tokens - length + 1, size=num_sequences)
            ids = np.stack([self.stream.read(int(start), length) for start in starts])
        return torch.from_numpy(ids)

    def counts(self) -> np.ndarray:
        """Occurrences of every id in the corpus, int64 [vocab_size]."""
        if self.stream is None:
            return np.round(self._zipf() * 1e9).astype(np.int64)
        counted = Path(self.stream.folder) / "counts.safetensors"
        if counted.is_file():
            return read_counts(counted).counts
        shards = range(len(self.stream.manifest.shards))
        return sum(np.bincount(self.stream.shard_tokens(shard), minlength=self.vocab_size) for shard in shards)

    def table(self, path: str | None, *, num_experts: int, ep_size: int) -> torch.Tensor:
        """The route table [vocab_size, 1], from a file or balanced over experts and ranks by these tokens' counts."""
        if path is None:
            return torch.from_numpy(balanced_table(self.counts(), num_experts, ep_size=ep_size))
        table = read_route_table(path)
        if table.num_experts != num_experts or table.tables.shape[1] < self.vocab_size:
            raise ValueError(
                f"{path} has {table.num_experts} experts and {table.tables.shape[1]} keys, but the benchmark has "
                f"{num_experts} experts and {self.vocab_size} tokens; omit --table, or build a table that fits"
            )
        return torch.from_numpy(table.tables[0, : self.vocab_size, :1])

    def _zipf(self) -> np.ndarray:
        weights = 1 / (np.arange(self.vocab_size) + 2)
        return weights / weights.sum()
