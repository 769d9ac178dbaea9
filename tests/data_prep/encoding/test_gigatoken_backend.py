"""gigatoken is reloaded before the words that it remembers fill the memory."""

import numpy as np

from data_prep.encoding import gigatoken_backend
from data_prep.encoding.make_encoder import make_encoder
from tests.data_prep.encoding.nasty_texts import nasty_texts


def test_it_is_reloaded_when_the_process_has_grown(tokenizer_folder, monkeypatch):
    monkeypatch.setattr(gigatoken_backend, "MAX_GROWTH_BYTES", 100)
    sizes = iter([1000, 1100, 1101, 5000, 5100])
    monkeypatch.setattr(gigatoken_backend, "resident_bytes", lambda: next(sizes))
    loaded = []
    load = gigatoken_backend.GigatokenEncoder._reload
    monkeypatch.setattr(gigatoken_backend.GigatokenEncoder, "_reload", lambda self: (loaded.append(self), load(self)))
    encoder = make_encoder(tokenizer_folder, "gigatoken")
    texts = nasty_texts(50, seed=9)
    results = [encoder.encode(texts)[0] for _ in range(3)]
    assert len(loaded) == 2  # at first, and at 1101
    assert all(np.array_equal(result, results[0]) for result in results)


def test_the_memory_of_this_process_is_known():
    assert 10**7 < gigatoken_backend.resident_bytes() < 10**11
