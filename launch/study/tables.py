"""The route tables of a study: each is built once per seed, from counts or from a trained variant's embeddings."""

import dataclasses
import json
from pathlib import Path

import xxhash

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import Counts, read_counts, write_counts
from data_prep.counts.frequent_bigrams import count_frequent_bigrams
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.shards.mixture import read_mixture
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.model_weights import read_embeddings
from data_prep.table_checks.text_report import table_report
from data_prep.tables.make_route_table import TableOptions, make_route_table, tokens_to_split
from data_prep.tables.route_table import RouteTable
from data_prep.tables.route_table_file import write_route_table
from launch.study.recipes import Study
from train.config.run_config import RunConfig


def table_path(output: Path, name: str, *, seed: int) -> Path:
    return output / "tables" / f"seed_{seed}" / f"{name}.safetensors"


def with_tables(study: Study, variant: str, output: Path, *, seed: int) -> RunConfig:
    """Return the variant's config with the paths of the seed's tables instead of their names."""
    config = study.variants[variant]
    built = study.tables_of(variant)
    paths = [str(table_path(output, name, seed=seed)) if name in built else name for name in config.route_table]
    return dataclasses.replace(config, route_table=paths)


def build_tables(study: Study, variant: str, output: Path, *, seed: int, models: dict[str, Path]) -> list[Path]:
    """Build the tables of a variant that do not exist yet, and return their paths.

    models: Hugging Face directories by variant, for tables that need embeddings. ValueError if no table can be built
    with the arguments, or if the existing table was built from other arguments, data or embeddings.
    """
    built = []
    for name in study.tables_of(variant):
        path, arguments = table_path(output, name, seed=seed), table_arguments(study, name, seed=seed)
        origin = arguments | _inputs(study, arguments, models)
        if _is_built(path, origin):
            continue
        counts = _counts(study, arguments, output)
        try:
            table = _make(study, arguments, counts, models)
        except (ValueError, OSError) as error:
            raise ValueError(f"table {name} could not be built: {error}") from error
        write_route_table(path, table)
        report = table_report(table, counts).splitlines()
        with atomic_file(path.with_suffix(".json")) as file:  # after the table: it marks the table as whole
            file.write(json.dumps({"built_from": origin, "report": report}, indent=1).encode())
        built.append(path)
    return built


def table_arguments(study: Study, name: str, *, seed: int) -> dict:
    """Return what decides a table: the study file's arguments, those that follow from its first recipe, the seed."""
    config = next(study.variants[variant] for variant in study.variants if name in study.tables_of(variant))
    number = 1 if config.share_route_table or len(config.route_table) > 1 else len(config.sparse_layers)
    follows = {"num_experts": config.num_experts, "ep_size": config.ep_size, "num_tables": number}
    return {"method": "balanced", "hash_key": "token", **follows, **study.tables[name], "seed": seed}


def _inputs(study: Study, arguments: dict, models: dict[str, Path]) -> dict:
    """Return what else decides a table: the counted corpus, its context length, and the values of the embeddings."""
    config, mixture = study.config, read_mixture(study.config.train_data)
    inputs = {"corpus_digest": mixture.corpus_digest, "context_length": config.context_length}
    if "embeddings" in arguments:
        num_tokens = config.vocab_size or mixture.vocab_size
        embeddings = read_embeddings(models[arguments["embeddings"]], num_tokens=num_tokens)
        inputs["embeddings_digest"] = xxhash.xxh3_128_hexdigest(embeddings.tobytes())  # whatever ranks saved them
    return inputs


def _corpus_digest(config: RunConfig) -> str:
    return read_mixture(config.train_data).corpus_digest


def _is_built(path: Path, origin: dict) -> bool:
    record = path.with_suffix(".json")
    if not record.is_file() or not path.is_file():
        return False
    found = json.loads(record.read_text()).get("built_from", {})
    for name in found | origin:
        if found.get(name) != origin.get(name):
            raise ValueError(
                f"{path} was built with {name}={found.get(name)}, but this study has {name}={origin.get(name)}; give "
                "another --output, or remove the table and the runs that used it"
            )
    return True


def _counts(study: Study, arguments: dict, output: Path) -> Counts:
    """Return the counts of the training tokens under the table's key; count unless their file is up to date."""
    key, config = COUNTED_AS[arguments["hash_key"]], study.config
    buckets = int(arguments.get("num_buckets", 0))
    path = output / "counts" / (f"{key}_{buckets}.safetensors" if buckets else f"{key}.safetensors")
    if path.is_file() and _are_of(counts := read_counts(path), config):
        return counts
    counts = count_folders(
        [config.train_data],
        hash_key=key,
        vocab_size=config.vocab_size,
        num_buckets=buckets,
        context_length=config.context_length,
    )
    write_counts(path, counts)
    return counts


def _are_of(counts: Counts, config: RunConfig) -> bool:
    """Return whether counts are those of the study's data as it is now."""
    is_length = counts.context_length in (0, config.context_length)
    is_vocabulary = counts.vocab_size == config.vocab_size or not config.vocab_size
    return is_length and is_vocabulary and counts.corpus_digest == _corpus_digest(config)


def _make(study: Study, arguments: dict, counts: Counts, models: dict[str, Path]) -> RouteTable:
    values = {name: value for name, value in arguments.items() if name not in ("num_buckets", "embeddings")}
    options, inputs = TableOptions(**values), {}
    if "embeddings" in arguments:
        inputs["embeddings"] = read_embeddings(models[arguments["embeddings"]], num_tokens=counts.vocab_size)
    if options.split_frequent_tokens:
        inputs["context_length"] = study.config.context_length
        inputs["bigrams"] = count_frequent_bigrams(
            read_mixture(study.config.train_data),
            tokens_to_split(counts, options),
            vocab_size=counts.vocab_size,
            context_length=study.config.context_length,
        )
    return make_route_table(counts, options, **inputs)
