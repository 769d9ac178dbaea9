"""Make an encoder from texts to ids: the tokenizers library, or a faster backend that gives the same ids."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from data_prep.encoding.gigatoken_backend import GigatokenEncoder
from data_prep.encoding.plain_bpe import plain_bpe
from data_prep.encoding.reference import ReferenceEncoder, WithReference
from data_prep.encoding.spot_check import SpotCheckedEncoder
from data_prep.encoding.tiktoken_backend import TiktokenEncoder
from data_prep.encoding.tokenizer import load_tokenizer

FAST = {"tiktoken": TiktokenEncoder, "gigatoken": GigatokenEncoder}
BACKENDS = ("tokenizers", *FAST)


class Encoder(Protocol):
    """Texts to ids, as if each text were encoded alone; without special tokens, a literal "<|endoftext|>" is text."""

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (uint32) of all texts one after the other, and the number of ids of each (int64)."""


def make_encoder(folder: str | Path, backend: str, *, num_threads: int = 1) -> Encoder:
    """Load the tokenizer in `folder`; ValueError where `backend` is not installed or cannot give the same ids.

    A fast backend is compared with the tokenizers library while it encodes, which also takes the texts it fails on.
    """
    if backend not in BACKENDS:
        raise ValueError(f"--backend {backend} is unknown; choose one of {', '.join(BACKENDS)}")
    tokenizer = load_tokenizer(folder)
    reference = ReferenceEncoder(tokenizer)
    if backend not in FAST:
        return reference
    module = _import(backend)
    try:
        bpe = plain_bpe(tokenizer)
    except ValueError as error:
        what = f"--backend {backend} takes only tokenizers like GPT-2's, and the one in {folder} {error}"
        raise ValueError(f"{what}; use --backend tokenizers") from error
    fast = WithReference(FAST[backend](bpe, module, num_threads=num_threads), reference, bpe=bpe)
    return SpotCheckedEncoder(fast, reference, backend=backend, bpe=bpe)


def _import(backend: str) -> ModuleType:
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        raise ValueError(f"--backend {backend} cannot be imported ({error}): pip install {backend}") from error
