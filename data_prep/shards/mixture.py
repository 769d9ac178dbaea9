"""Mixtures of corpora: folders of token shards, and how often each of them is seen per epoch of the whole.

A path names one of: a folder of token shards, which is a mixture of one part of weight 1; a .yaml file; a folder with
`mixture.yaml`. The file reads `parts: {FOLDER: WEIGHT, ...}`, folders relative to the file, in their order.
"""

import hashlib
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


@dataclass(frozen=True)
class Part:
    """One corpus of a mixture."""

    stream: TokenStream
    weight: Fraction = Fraction(1)  # how often each of its sequences is seen per epoch; above 0


@dataclass(frozen=True)
class Mixture:
    """Corpora of one tokenizer, at least one; ValueError where their tokenizers differ."""

    parts: tuple[Part, ...]

    def __post_init__(self):
        for part in self.parts[1:]:
            check_same_tokenizer(self.parts[0].stream, part.stream)

    @property
    def streams(self) -> list[TokenStream]:
        return [part.stream for part in self.parts]

    @property
    def weights(self) -> list[Fraction]:
        return [part.weight for part in self.parts]

    @property
    def tokenizer_digest(self) -> str:
        return self.streams[0].manifest.tokenizer_digest

    @property
    def vocab_size(self) -> int:
        return self.streams[0].manifest.vocab_size

    @property
    def end_token_id(self) -> int:
        return self.streams[0].manifest.end_token_id

    @property
    def corpus_digest(self) -> str:
        """The digest of a single corpus of weight 1; else of all digests in their order, with weights other than 1."""
        return joint_digest((part.stream.manifest.corpus_digest, part.weight) for part in self.parts)


def read_mixture(path: str | Path) -> Mixture:
    """Open a mixture; parts of weight 0 are left out.

    ValueError or FileNotFoundError, naming the file and the value, for what cannot be a mixture or be opened.
    """
    path, file = Path(path), _mixture_file(path)
    if file is None:
        return Mixture((Part(TokenStream(path)),))
    if (path / MANIFEST_NAME).is_file():
        raise ValueError(f"{path} holds both {MANIFEST_NAME} and {MIXTURE_NAME}; name {file}, or remove one of them")
    return Mixture(tuple(Part(_open(file, folder), weight) for folder, weight in _read_weights(file).items() if weight))


def mixture_folders(path: str | Path) -> list[Path]:
    """Return the folders of all parts of a mixture, those of weight 0 included; none where `path` is no mixture."""
    file = _mixture_file(path)
    return [] if file is None else [file.parent / folder for folder in _read_weights(file)]


def read_mixtures(paths: Iterable[str | Path]) -> Mixture:
    """Open the parts of several mixtures as those of one, in their order."""
    return Mixture(tuple(part for path in paths for part in read_mixture(path).parts))


def write_mixture(path: str | Path, parts: dict[str | Path, float | str]) -> None:
    """Write a mixture file atomically: {folder: weight}, folders as the file names them, relative to where it lies."""
    weights = {str(folder): weight for folder, weight in parts.items()}
    check_weights(path, weights)
    with atomic_file(path) as file:
        file.write(yaml.safe_dump({"parts": weights}, sort_keys=False, allow_unicode=True).encode())


def scaled(numbers: np.ndarray, weight: Fraction) -> np.ndarray:
    """Return int64 `numbers` >= 0 times `weight`, halves rounded up; exact, so that every machine finds the same."""
    if weight == 1:
        return numbers
    found = np.flatnonzero(numbers)
    products = np.zeros(numbers.size, dtype=np.int64)
    products[found] = [scaled_number(number, weight) for number in numbers.flat[found].tolist()]
    return products.reshape(numbers.shape)


def scaled_number(number: int, weight: Fraction) -> int:
    """Return number * weight, halves rounded up."""
    return (2 * number * weight.numerator + weight.denominator) // (2 * weight.denominator)


def check_same_tokenizer(first: TokenStream, other: TokenStream) -> None:
    """Raise ValueError where the ids of two streams do not mean the same."""
    expected, found = first.manifest.tokenizer_digest, other.manifest.tokenizer_digest
    if expected != found:
        raise ValueError(
            f"{first.folder} was tokenized with {expected} but {other.folder} with {found}; "
            "tokenize both with the same tokenizer"
        )


def joint_digest(digests: Iterable[tuple[str, Fraction]]) -> str:
    """Return the digest of corpora with their weights."""
    lines = [digest if weight == 1 else f"{digest} * {weight}" for digest, weight in digests]
    if len(lines) == 1 and " * " not in lines[0]:
        return lines[0]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _mixture_file(path: str | Path) -> Path | None:
    file = Path(path) if Path(path).is_file() else Path(path) / MIXTURE_NAME
    return file if file.is_file() else None


def _open(file: Path, folder: str) -> TokenStream:
    try:
        return TokenStream(file.parent / folder)
    except (ValueError, OSError) as error:
        raise type(error)(f"{file} names {folder!r}: {error}") from error


def _read_weights(file: Path) -> dict[str, Fraction]:
    """Return {folder: weight} of a mixture file."""
    content = read_yaml(file)
    if not isinstance(content, dict) or content.keys() != {"parts"} or not isinstance(content["parts"], dict):
        raise ValueError(f"{file} is not a mixture; it must read `parts: {{FOLDER: WEIGHT, ...}}` and nothing else")
    return check_weights(file, {str(folder): weight for folder, weight in content["parts"].items()})


def check_weights(file: str | Path, weights: dict[str, float | str]) -> dict[str, Fraction]:
    """Return the weights as exact numbers; ValueError naming the file where one is none, or all are 0."""
    checked = {folder: _weight(file, folder, value) for folder, value in weights.items()}
    if not any(checked.values()):
        raise ValueError(f"{file} has no part with a weight above 0: {weights}; give one of them a weight")
    return checked


def _weight(file: str | Path, folder: str, value: float | str) -> Fraction:
    try:
        if isinstance(value, bool):
            raise ValueError
        weight = Fraction(str(value))  # through text: 0.1 is a tenth, not the nearest float
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{file} gives {folder!r} the weight {value!r}, which is not a number") from None
    if weight < 0:
        raise ValueError(f"{file} gives {folder!r} the weight {value}; it must be a number from 0")
    return weight
