"""Mixtures of corpora: folders of token shards, and the passes over each of them per epoch of the whole.

A path names one of: a folder of token shards, which is a mixture of one part with one epoch; a .yaml file; a folder
with `mixture.yaml`. The file reads `parts: {FOLDER: EPOCHS, ...}`, with folders relative to the file; their order is
that of the parts.
"""

import hashlib
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import yaml

from data_prep.shards.manifest import MANIFEST_NAME
from data_prep.shards.token_stream import TokenStream
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.yaml_file import read_yaml

MIXTURE_NAME = "mixture.yaml"
MOST_EPOCHS = 1_000_000
# Such as 2, 0.5, 1/3 and 1e-05. An exact number with an exponent of 30,000,000 would take hours.
_NUMBER = re.compile(r"[+-]?[0-9.]{1,40}(e[+-]?[0-9]{1,2})?|[+-]?[0-9]{1,20}/[0-9]{1,20}", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One corpus of a mixture."""

    stream: TokenStream
    epochs: Fraction = Fraction(1)  # passes over the part per epoch of the mixture; above 0


@dataclass(frozen=True)
class Mixture:
    """Corpora of one tokenizer, at least one; ValueError if their tokenizers differ."""

    parts: tuple[Part, ...]

    def __post_init__(self):
        for part in self.parts[1:]:
            check_same_tokenizer(self.parts[0].stream, part.stream)

    @property
    def streams(self) -> list[TokenStream]:
        return [part.stream for part in self.parts]

    @property
    def epochs(self) -> list[Fraction]:
        """Passes over each part per epoch of the mixture."""
        return [part.epochs for part in self.parts]

    @property
    def tokenizer_digest(self) -> str:
        return self.streams[0].manifest.tokenizer_digest

    @property
    def vocab_size(self) -> int:
        return self.streams[0].manifest.vocab_size

    @property
    def end_token(self) -> str:
        return self.streams[0].manifest.end_token

    @property
    def end_token_id(self) -> int:
        return self.streams[0].manifest.end_token_id

    @property
    def corpus_digest(self) -> str:
        """The digest of a single corpus with one epoch; otherwise the joint digest of all parts."""
        return joint_digest((part.stream.manifest.corpus_digest, part.epochs) for part in self.parts)


def read_mixture(path: str | Path) -> Mixture:
    """Open a mixture without its parts of 0 epochs.

    ValueError or FileNotFoundError, naming file and value, if the file is not a mixture or a part cannot be opened.
    """
    path, file = Path(path), _mixture_file(path)
    if file is None:
        return Mixture((Part(TokenStream(path)),))
    if (path / MANIFEST_NAME).is_file():
        raise ValueError(f"{path} holds both {MANIFEST_NAME} and {MIXTURE_NAME}; name {file}, or remove one of them")
    return Mixture(tuple(Part(_open(file, folder), epochs) for folder, epochs in _read_epochs(file).items() if epochs))


def mixture_folders(path: str | Path) -> list[Path]:
    """Return the folders of all parts of a mixture, including those of 0 epochs; none if `path` is not a mixture."""
    file = _mixture_file(path)
    return [] if file is None else [file.parent / folder for folder in _read_epochs(file)]


def folders_to_read(path: str | Path) -> list[Path]:
    """Return the folders that read_mixture opens, whether or not they exist."""
    file = _mixture_file(path)
    return (
        [Path(path)] if file is None else [file.parent / name for name, epochs in _read_epochs(file).items() if epochs]
    )


def read_mixtures(paths: Iterable[str | Path]) -> Mixture:
    """Open several mixtures as one, with the parts of all in their order."""
    return Mixture(tuple(part for path in paths for part in read_mixture(path).parts))


def write_mixture(path: str | Path, parts: dict[str | Path, float | str]) -> None:
    """Write a mixture file atomically: {folder: epochs}, with folders relative to the folder of the file."""
    epochs = {str(folder): value for folder, value in parts.items()}
    check_epochs(path, epochs)
    with atomic_file(path) as file:
        file.write(yaml.safe_dump({"parts": epochs}, sort_keys=False, allow_unicode=True).encode())


def scaled(numbers: np.ndarray, factor: Fraction) -> np.ndarray:
    """Return int64 `numbers` >= 0 times `factor`, halves rounded up; exact, so the same on every machine."""
    if factor == 1:
        return numbers
    found = np.flatnonzero(numbers)
    products = np.zeros(numbers.size, dtype=np.int64)
    products[found] = [scaled_number(number, factor) for number in numbers.flat[found].tolist()]
    return products.reshape(numbers.shape)


def scaled_number(number: int, factor: Fraction) -> int:
    """Return number * factor, halves rounded up."""
    return (2 * number * factor.numerator + factor.denominator) // (2 * factor.denominator)


def check_same_tokenizer(first: TokenStream, other: TokenStream) -> None:
    """Raise ValueError if two streams were not tokenized with the same tokenizer and end token."""
    expected, found = first.manifest.tokenizer_digest, other.manifest.tokenizer_digest
    if expected != found:
        raise ValueError(
            f"{first.folder} was tokenized with {expected} but {other.folder} with {found}; "
            "tokenize both with the same tokenizer"
        )
    expected, found = first.manifest.end_token, other.manifest.end_token
    if expected != found:
        raise ValueError(
            f"{first.folder} ends documents with {expected!r} but {other.folder} with {found!r}; "
            "tokenize both with the same --end_token"
        )


def joint_digest(parts: Iterable[tuple[str, Fraction]]) -> str:
    """Return the joint digest of (digest, epochs) of each corpus in order; one corpus of one epoch keeps its own."""
    lines = [digest if epochs == 1 else f"{digest} * {epochs}" for digest, epochs in parts]
    if len(lines) == 1 and " * " not in lines[0]:
        return lines[0]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_epochs(file: str | Path, epochs: dict[str, float | str]) -> dict[str, Fraction]:
    """Return the epochs of each part as exact numbers; ValueError if one is negative or not a number, or all are 0."""
    checked = {folder: _epochs(file, folder, value) for folder, value in epochs.items()}
    if not any(checked.values()):
        raise ValueError(f"{file} has no part with epochs above 0: {reprlib.repr(epochs)}; give one of them epochs")
    return checked


def _mixture_file(path: str | Path) -> Path | None:
    file = Path(path) if Path(path).is_file() else Path(path) / MIXTURE_NAME
    return file if file.is_file() else None


def _open(file: Path, folder: str) -> TokenStream:
    try:
        return TokenStream(file.parent / folder)
    except (ValueError, OSError) as error:
        raise type(error)(f"{file} names {folder!r}: {error}") from error


def _read_epochs(file: Path) -> dict[str, Fraction]:
    """Return {folder: epochs} of a mixture file."""
    content = read_yaml(file)
    if not isinstance(content, dict) or content.keys() != {"parts"} or not isinstance(content["parts"], dict):
        raise ValueError(f"{file} is not a mixture; it must read `parts: {{FOLDER: EPOCHS, ...}}` and nothing else")
    return check_epochs(file, {str(folder): epochs for folder, epochs in content["parts"].items()})


def _epochs(file: str | Path, folder: str, value: float | str) -> Fraction:
    text = reprlib.repr(value)
    try:
        if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
            raise ValueError
        epochs = Fraction(str(value))  # through text: 0.1 is a tenth, not the nearest float
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{file} gives {folder!r} epochs={text}, which is not a number") from None
    if not 0 <= epochs <= MOST_EPOCHS:
        raise ValueError(f"{file} gives {folder!r} epochs={text}; it must be from 0 to {MOST_EPOCHS:,}")
    return epochs
