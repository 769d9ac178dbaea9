"""Encode with gigatoken, the fastest backend, within a limit on the words that it remembers."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np

from data_prep.encoding.plain_bpe import PlainBpe

PAGE_BYTES = 4096
# gigatoken remembers every word that it has seen: 9 GB after 900 MB of random words. Reloading it takes 0.1 s.
MAX_GROWTH_BYTES = 2**29


class GigatokenEncoder:
    """Raises gigatoken's own errors on lone surrogates. If num_threads > 1, RAYON_NUM_THREADS sets the number."""

    def __init__(self, bpe: PlainBpe, gigatoken: ModuleType, *, num_threads: int):
        self._load = lambda: gigatoken.Tokenizer.from_json(_description(bpe))
        self._is_parallel = num_threads > 1
        self._reload()

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode."""
        layout = self._tokenizer.encode_batch(texts, parallel=self._is_parallel).layout
        borders = layout.offsets.data
        if resident_bytes() > self._start_bytes + MAX_GROWTH_BYTES:
            self._reload()
        return layout.content.data[borders[0] : borders[-1]], np.diff(borders)

    def _reload(self) -> None:
        self._tokenizer = None  # frees the old memory first
        self._tokenizer = self._load()
        self._start_bytes = resident_bytes()


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 on systems without Linux's /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * PAGE_BYTES if path.exists() else 0


def _description(bpe: PlainBpe) -> str:
    """Write tokenizer.json without added tokens, which gigatoken would find in text."""
    model = {"type": "BPE", "vocab": bpe.ids, "merges": bpe.merges}
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": words, "model": model})
