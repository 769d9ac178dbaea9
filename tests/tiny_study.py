"""A study of a few tiny variants, and a stand-in for training that writes the files of a finished run at once."""

import json
from pathlib import Path

import numpy as np
import xxhash
import yaml
from safetensors.numpy import save_file

from data_prep.shards.manifest import read_manifest
from launch.study.runs import StudyRun
from models.configuration_hash_gpt import HashGPTConfig
from tests.tiny_run import NUM_EXPERTS, TinyData, tiny_run_fields
from train.checkpoint.files.manifest import manifest_bytes
from train.checkpoint.run_folder import save_run_config

SPARSE = {"base": "base.yaml", "sparse_layers": [1]}
VARIANTS = {
    "dense": {"base": "base.yaml", "sparse_layers": []},
    "balanced": {**SPARSE, "route_table": "balanced"},
    "random": {**SPARSE, "route_table": "random"},
    "clustered": {**SPARSE, "route_table": "clustered"},
    "switch": {**SPARSE, "router": "switch"},
}
TABLES = {
    "balanced": {"method": "balanced"},
    "random": {"method": "random"},
    "clustered": {"method": "clustered", "embeddings": "dense"},
}


def write_study(
    folder: Path, data: TinyData, *variants: str, recipes: dict | None = None, base: dict | None = None, **study
) -> Path:
    """Write the recipes of `variants`. Further fields: recipes of single variants, base of all, study of the file."""
    folder.mkdir(parents=True)
    fields = tiny_run_fields(data, ep_size=1)
    for name in ("run_dir", "route_table", "sparse_layers"):
        fields.pop(name)
    _write(folder / "base.yaml", {**fields, **(base or {})})
    for variant in variants:
        _write(folder / f"{variant}.yaml", {**VARIANTS[variant], **((recipes or {}).get(variant) or {})})
    tables = {name: arguments for name, arguments in TABLES.items() if name in variants}
    content = {"variants": list(variants), "baseline": variants[0], "tables": tables, "expect": []}
    _write(folder / "study.yaml", {**content, **study})
    return folder


def finish(
    run: StudyRun, *, perplexity: float | None = 10.0, compatibility: dict | None = None, **train_fields
) -> None:
    """Write what a finished run leaves: metrics of every second step, and a last checkpoint with embeddings.

    compatibility: the values that a resumed run compares; the corpus alone unless given.
    """
    config = run.config
    save_run_config(config)
    lines = []
    for step in range(2, config.max_steps + 1, 2):
        line = {"kind": "train", "step": step, "loss": 2.0, "tokens_per_second": 128.0, "imbalance": None}
        lines += [line | train_fields, validation_line(step, perplexity if step == config.max_steps else 20.0)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_checkpoint(run, compatibility)


def validation_line(step: int, perplexity: float | None) -> dict:
    return {"kind": "validation", "step": step, "loss": 1.0, "perplexity": perplexity, "num_tokens": 160}


def write_checkpoint(run: StudyRun, compatibility: dict | None) -> None:
    config = run.config
    run.model.mkdir(parents=True)
    network = HashGPTConfig(
        vocab_size=300, max_position_embeddings=16, hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
        sparse_layers=config.sparse_layers, num_experts=NUM_EXPERTS, hash_keys=["token"] * len(config.sparse_layers),
    )  # fmt: skip
    (run.model / "config.json").write_text(network.to_json_string())
    embeddings = np.random.default_rng(run.seed).normal(size=(300, config.hidden_size)).astype(np.float32)
    save_file({"transformer.wte.weight": embeddings}, run.model / "model.safetensors")
    weights = (run.model / "model.safetensors").read_bytes()
    files = {"model.safetensors": [[len(weights), xxhash.xxh3_128(weights).hexdigest()]]}
    compatibility = compatibility or {"corpus_digest": read_manifest(config.train_data).corpus_digest}
    facts = {"resume_compatibility": compatibility, "step": config.max_steps, "world_size": 1, "files": files}
    (run.model / "manifest.json").write_bytes(manifest_bytes(facts))


def _write(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content))
