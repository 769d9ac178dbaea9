"""A table of DeepSeek-V4's is imported and checked on tokens of a tokenizer of DeepSeek's shape."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_prep.check_table import main as check_table
from data_prep.encoding.tokenizer import load_tokenizer, vocab_size
from data_prep.import_table import main as import_table
from data_prep.prepare import main as prepare
from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.encoding.tokenizer_kinds import END_TOKENS, TEXTS, write_tokenizer
from tests.data_prep.tokenizing.test_interrupted import RUN_JOBS, run_jobs_here

NUM_EXPERTS, TOP_K, NUM_LAYERS, PADDING = 8, 3, 2, 28  # ids of the model above those of its tokenizer


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    """Texts tokenized with DeepSeek's end token, which is the tokenizer's own, so no option names it."""
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)
    tokenizer = write_tokenizer(tmp_path / "model", "deepseek")
    raw = write_raw_shard(tmp_path / "raw.jsonl", TEXTS * 20)
    assert run(prepare, raw, "--tokenizer", tokenizer, "--context_length", 8, "--output", tmp_path / "data") == 0
    return TokenStream(tmp_path / "data" / "train")


@pytest.fixture
def weights(tmp_path, tokens):
    """Weights as DeepSeek releases them, the tables of the first layers among them; return the tables."""
    num_ids = vocab_size(load_tokenizer(tmp_path / "model")) + PADDING
    generator = np.random.default_rng(0)
    choices = [[generator.permutation(NUM_EXPERTS)[:TOP_K] for _ in range(num_ids)] for _ in range(NUM_LAYERS)]
    tables = np.array(choices, dtype=np.int64)
    tensors = {f"layers.{layer}.ffn.gate.tid2eid": table for layer, table in enumerate(tables)}
    others = {"layers.2.ffn.gate.weight": np.zeros((NUM_EXPERTS, 4), dtype=np.float32)}
    save_file(tensors | others, tmp_path / "model" / "model.safetensors")
    return tables


def run(command, *arguments):
    return command([str(argument) for argument in arguments])


def run_import(tmp_path, tokenizer="model"):
    options = ["--format", "deepseek", "--num_experts", NUM_EXPERTS, "--tokenizer", tmp_path / tokenizer]
    assert run(import_table, tmp_path / "model", *options, "--output", tmp_path / "theirs.safetensors") == 0


def check(tmp_path, *options):
    data = ["--data", tmp_path / "data" / "train", "--context_length", 8, "--batch_tokens", 16]
    return run(check_table, tmp_path / "theirs.safetensors", *data, *options)


def test_documents_end_in_the_models_own_end_token(tmp_path, tokens):
    manifest, tokenizer = read_manifest(tokens.folder), load_tokenizer(tmp_path / "model")
    assert manifest.end_token == END_TOKENS["deepseek"][0] == "<｜end▁of▁sentence｜>"
    assert manifest.end_token_id == tokenizer.token_to_id(manifest.end_token)
    ids = tokens.read(0, tokens.num_tokens)
    assert (ids == manifest.end_token_id).sum() == manifest.num_documents == 20 * len(TEXTS)


def test_it_measures_the_load_of_the_models_tokens(tmp_path, tokens, weights, capsys):
    run_import(tmp_path)
    ids = tokens.read(0, (tokens.num_tokens - 1) // 8 * 8)  # whole contexts, each with its targets
    loads_E = [np.bincount(table[ids].ravel(), minlength=NUM_EXPERTS) for table in weights]
    imbalances = [load_E.max() / load_E.mean() for load_E in loads_E]
    assert check(tmp_path, "--max_imbalance", max(imbalances) + 1e-9) == 0
    out = capsys.readouterr().out
    assert f"{len(ids):,} tokens in contexts of 8" in out
    for layer, imbalance in enumerate(imbalances):
        assert f"table {layer}: imbalance of experts, max/mean {imbalance:.4f}" in out
    assert check(tmp_path, "--max_imbalance", max(imbalances) - 1e-3) == 1
    assert f"expert imbalance, max/mean, {max(imbalances):.4f} is above" in capsys.readouterr().err


def test_the_table_keeps_the_padded_vocabulary(tmp_path, tokens, weights, capsys):
    run_import(tmp_path)
    num_ids = read_manifest(tokens.folder).vocab_size + PADDING
    assert f"2 tables of {num_ids:,} ids, top 3 of 8 experts" in capsys.readouterr().out


def test_a_table_of_another_tokenizer_is_refused(tmp_path, tokens, weights, capsys):
    write_tokenizer(tmp_path / "other", "qwen")
    run_import(tmp_path, tokenizer="other")
    assert check(tmp_path) == 2
    assert "the route table was made for tokenizer sha256:" in capsys.readouterr().err
