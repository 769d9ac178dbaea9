"""How fast one core reads shuffled sequences of token shards: every block's digest and ids are checked on the way."""

import time
from pathlib import Path

import numpy as np

from data_prep.mixture import read_mixture
from data_prep.sequences import Sequences


def reading_speed(
    path: str | Path, *, context_length: int = 1024, batch_size: int = 128, num_tokens: int = 10**8, seed: int = 0
) -> float:
    """Return tokens per second of this process's time, of about num_tokens tokens in batches of sequences.

    path: token shards or a mixture, whose weights are ignored; read as often as it takes. ValueError where it holds
    less than one batch. Files that the page cache does not hold wait for the disk, which takes time of no process.
    """
    sequences = Sequences(read_mixture(path).streams, context_length=context_length)
    if sequences.num_sequences < batch_size:
        raise ValueError(
            f"{path} holds {sequences.num_sequences} sequences of {context_length} tokens, less than one batch of "
            f"{batch_size}; use more data or smaller batches"
        )
    generator, num_batches = np.random.default_rng(seed), max(num_tokens // (batch_size * context_length), 1)
    start = time.process_time()
    for _ in range(num_batches):
        sequences.read(generator.integers(sequences.num_sequences, size=batch_size))
    return num_batches * batch_size * context_length / (time.process_time() - start)
