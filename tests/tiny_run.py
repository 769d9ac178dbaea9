"""A corpus, tokenizer and route table that take a second to build, and run config fields that train on them."""

import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import write_counts
from data_prep.shards.manifest import read_manifest
from data_prep.tables.make_route_table import TableOptions, make_route_table
from data_prep.tables.route_table_file import write_route_table
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer

VOCAB_SIZE, NUM_EXPERTS, NUM_TABLES, EP_SIZE = 300, 4, 2, 2


@dataclass(frozen=True)
class TinyData:
    """Everything that data_prep writes for a run, in one folder."""

    folder: Path
    vocab_size: int = VOCAB_SIZE

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def train(self) -> Path:
        """Token shards, with counts.safetensors beside them."""
        return self.folder / "train"

    @property
    def valid(self) -> Path:
        return self.folder / "valid"

    @property
    def counts(self) -> Path:
        return self.train / "counts.safetensors"

    @property
    def route_table(self) -> Path:
        """Two balanced tables for 4 experts on 2 ranks."""
        return self.folder / "balanced_4.safetensors"


def make_tiny_data(folder: Path) -> TinyData:
    """Write text, tokenizer, token shards, counts and route table below `folder`; the bytes are the same every time."""
    data = TinyData(folder)
    save_tokenizer(train_tokenizer(_documents(400, seed=0), vocab_size=VOCAB_SIZE), data.tokenizer)
    for output, num_documents, seed in ((data.train, 300, 1), (data.valid, 40, 2)):
        text = folder / f"{output.name}.txt"
        text.write_text("\n\n".join(_documents(num_documents, seed=seed)) + "\n")
        tokenize_folder([text], tokenizer=data.tokenizer, output=output)
    assert read_manifest(data.train).num_tokens >= 3000
    counts = count_folders([data.train])
    write_counts(data.counts, counts)
    options = TableOptions(NUM_EXPERTS, num_tables=NUM_TABLES, ep_size=EP_SIZE)
    write_route_table(data.route_table, make_route_table(counts, options))
    return data


def tiny_run_fields(data: TinyData, **overrides) -> dict:
    """RunConfig fields of a run of four steps: hidden size 16, 16 tokens, 2 blocks, the last with 4 experts."""
    fields = {
        "train_data": str(data.train), "eval_data": str(data.valid), "route_table": str(data.route_table),
        "context_length": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "sparse_layers": [1],
        "num_experts": NUM_EXPERTS, "max_steps": 4, "global_batch_size": 8, "micro_batch_size": 2, "lr": 1e-2,
        "warmup_steps": 2, "run_dir": str(data.folder / "run"), "log_every": 1, "eval_every": 2,
        "eval_sequences": 10, "save_every": 2,
    }  # fmt: skip
    return {**fields, **overrides}


def write_tiny_recipe(folder: Path, **overrides) -> Path:
    """A recipe of a run on two ranks with dropout, and its data, below a folder."""
    fields = tiny_run_fields(make_tiny_data(folder / "data"), ep_size=2, log_every=1, dropout=0.1, **overrides)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def _documents(count: int, *, seed: int) -> list[str]:
    """Lines such as "The old baker sees a red house."; the same seed gives the same lines."""
    choose = random.Random(seed).choice
    nouns = "baker house river garden child teacher letter window morning winter horse ship".split()
    adjectives = "old red quiet small bright heavy new cold".split()
    verbs = "sees finds leaves likes watches carries".split()
    return [
        f"The {choose(adjectives)} {choose(nouns)} {choose(verbs)} a {choose(adjectives)} {choose(nouns)}."
        for _ in range(count)
    ]
