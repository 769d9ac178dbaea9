"""The facts that all runs of a study share: recorded before the first run, and refused if they change."""

import json
from pathlib import Path

from data_prep.shards.mixture import read_mixture
from data_prep.storage.atomic_file import atomic_file
from train.config.run_config import RunConfig

_FILE = "shared.json"


def shared_facts(config: RunConfig, *, num_ranks: int) -> dict[str, int | str | None]:
    """Digests of the data, and the number of ranks: it decides dropout, the draws of routers, and times."""
    train = read_mixture(config.train_data)
    validation = read_mixture(config.eval_data) if config.eval_data else None
    return {
        "ranks": num_ranks,
        "tokenizer_digest": train.tokenizer_digest,
        "corpus_digest": train.corpus_digest,
        "eval_corpus_digest": validation.corpus_digest if validation else None,
    }


def check_shared(facts: dict, output: Path) -> None:
    """ValueError, naming both values, if the study in this folder started with other facts."""
    path = output / _FILE
    recorded = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in recorded.items():
        if facts[name] != value:
            raise ValueError(
                f"{path} has {name} {value}, but it is {facts[name]} now; runs with both are not comparable: "
                "restore the old value, or choose another --output"
            )


def record_shared(facts: dict, output: Path) -> None:
    with atomic_file(output / _FILE) as file:
        file.write(json.dumps(facts, indent=1).encode())
