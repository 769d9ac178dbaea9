"""Make an encoder: the tokenizers library, or gigatoken, which gives the same ids faster."""

import importlib
from pathlib import Path
from types import ModuleType

from tokenizers import Tokenizer

from data_prep.encoding.coverage import LossCheckedEncoder, coverage
from data_prep.encoding.encoder import Encoder
from data_prep.encoding.fallback import FallbackEncoder
from data_prep.encoding.gigatoken_backend import GigatokenEncoder
from data_prep.encoding.plain_bpe import PlainBpe, plain_bpe
from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.spot_check import SpotCheckedEncoder
from data_prep.encoding.tokenizer import load_tokenizer

BACKENDS = ("tokenizers", "gigatoken")


def make_encoder(folder: str | Path, backend: str, *, num_threads: int = 1) -> Encoder:
    """Load the tokenizer in `folder`; ValueError if `backend` is not installed or cannot give the same ids.

    While gigatoken encodes, samples of its ids are compared with those of the tokenizers library. The texts on which
    it fails are encoded by the tokenizers library.
    """
    if backend not in BACKENDS:
        raise ValueError(f"--backend {backend} is unknown; choose one of {', '.join(BACKENDS)}")
    tokenizer = load_tokenizer(folder)
    reference = ReferenceEncoder(tokenizer)
    if backend == "tokenizers":
        return LossCheckedEncoder(reference, tokenizer) if coverage(tokenizer).drops_text else reference
    gigatoken = _import(backend)
    bpe = _plain_bpe(tokenizer, folder, backend)
    fast = FallbackEncoder(GigatokenEncoder(bpe, gigatoken, num_threads=num_threads), reference, bpe=bpe)
    return SpotCheckedEncoder(fast, reference, backend=backend, bpe=bpe)


def _import(backend: str) -> ModuleType:
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        raise ValueError(f"--backend {backend} cannot be imported ({error}): pip install {backend}") from error


def _plain_bpe(tokenizer: Tokenizer, folder: str | Path, backend: str) -> PlainBpe:
    try:
        return plain_bpe(tokenizer)
    except ValueError as error:
        raise ValueError(
            f"--backend {backend} supports only tokenizers of GPT-2's kind, and the one in {folder} {error}; "
            "use --backend tokenizers"
        ) from error
