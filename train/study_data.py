"""The data of a study: recorded before its first run, and refused where they have changed since."""

import json
from pathlib import Path

from data_prep.atomic_file import atomic_file
from data_prep.mixture import read_mixture
from train.config import RunConfig


def check_data(config: RunConfig, output: Path) -> None:
    """Write output/data.json, or compare with it; ValueError naming both digests where train or valid data changed."""
    path, digests = output / "data.json", data_digests(config)
    if not path.is_file():
        with atomic_file(path) as file:
            file.write(json.dumps(digests, indent=1).encode())
    recorded = json.loads(path.read_text())
    for name, digest in digests.items():
        if recorded[name] != digest:
            raise ValueError(
                f"{path} has {name} {recorded[name]}, but the recipes' data now have {digest}; runs on both are not "
                "compared: restore the data, or give another --output"
            )


def data_digests(config: RunConfig) -> dict[str, str | None]:
    train = read_mixture(config.train_data)
    valid = read_mixture(config.valid_data) if config.valid_data else None
    return {
        "tokenizer_digest": train.tokenizer_digest,
        "corpus_digest": train.corpus_digest,
        "valid_corpus_digest": valid.corpus_digest if valid else None,
    }
