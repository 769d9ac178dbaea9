"""What all runs of a study share, data and number of ranks: recorded before the first, refused where it changed."""

import json
from pathlib import Path

from data_prep.shards.mixture import read_mixture
from data_prep.storage.atomic_file import atomic_file
from train.config.run_config import RunConfig

_FILE = "shared.json"


def shared_facts(config: RunConfig, *, num_ranks: int) -> dict[str, int | str | None]:
    """By name: digests of the data, and the ranks, by which dropout and routers draw and times are measured."""
    train = read_mixture(config.train_data)
    valid = read_mixture(config.eval_data) if config.eval_data else None
    return {
        "ranks": num_ranks,
        "tokenizer_digest": train.tokenizer_digest,
        "corpus_digest": train.corpus_digest,
        "valid_corpus_digest": valid.corpus_digest if valid else None,
    }


def check_shared(facts: dict, output: Path) -> None:
    """ValueError naming both values where the study in this folder was begun with other facts."""
    path = output / _FILE
    recorded = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in recorded.items():
        if facts[name] != value:
            raise ValueError(
                f"{path} has {name} {value}, now it is {facts[name]}; runs on both are not compared: go back to what "
                "it was, or give another --output"
            )


def record_shared(facts: dict, output: Path) -> None:
    with atomic_file(output / _FILE) as file:
        file.write(json.dumps(facts, indent=1).encode())
