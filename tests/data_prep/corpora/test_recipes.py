"""Each recipe of data_prep/corpora prepares a folder that is laid out like the real corpus."""

import json
from itertools import product

import pytest

from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.prepare import main as prepare
from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.corpus_recipe import read_corpus_recipe
from data_prep.train_tokenizer import main as train_tokenizer
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.documents.wikitext_excerpt import LIGHTHOUSE, ROWS, SONG
from tests.data_prep.tokenizing.test_interrupted import RUN_JOBS, run_jobs_here
from train.processes.project_root import ROOT

CORPORA = ROOT / "data_prep" / "corpora"
PAGES = ["A page\n\nof two paragraphs.", "another page"]
C4_FILES = ["en/c4-train.00000-of-01024.json.gz", "en/c4-train.01023-of-01024.json.gz"]
C4_VALID = "en/c4-validation.00000-of-00008.json.gz"
FINEWEB = [
    f"data/CC-MAIN-{crawl}/train-0000{n}-of-00014.parquet" for crawl, n in product(["2013-20", "2024-10"], [0, 1])
]
ROBERTA = ["bookcorpus/a.txt", "wikipedia/a.parquet", "ccnews/a.jsonl", "openwebtext/a.jsonl.zst", "stories/a.txt"]
ROBERTA += ["cc100en/en-00000.txt.zst", "valid/a.txt"]
# The files of each corpus, and what lies beside them in a copy of the hub's folder.
LAYOUTS = {
    "c4": ([*C4_FILES, C4_VALID], ["README.md", "realnewslike/c4-train.00000-of-00512.json.gz", "c4.py"]),
    "fineweb_edu": (FINEWEB, ["README.md", "sample/10BT/000_00000.parquet", "sample/100BT/000_00000.parquet"]),
    "mini_corpus": (ROBERTA, []),
    "roberta_cc100en": (ROBERTA, []),
    "wikitext103": (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
                    + [f"{part}-00000-of-00001.parquet" for part in ("validation", "test")], []),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)


def run(recipe, raw, tokenizer, output):
    paths = ["--raw", str(raw), "--tokenizer", str(tokenizer), "--output", str(output)]
    assert prepare([str(CORPORA / f"{recipe}.yaml"), *paths, "--backend", "tokenizers", "--context_length", "8"]) == 0
    return {part.name: read_manifest(output / part.name) for part in read_corpus_recipe(CORPORA / f"{recipe}.yaml")}


def write_corpus(folder, recipe, documents):
    files, beside = LAYOUTS[recipe]
    for name in files:
        write_raw_shard(folder / name, documents)
    for name in beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not to be read")
    return folder


def test_every_recipe_has_a_layout():
    assert {path.stem for path in CORPORA.glob("*.yaml")} == set(LAYOUTS)


@pytest.mark.parametrize("recipe", ["c4", "fineweb_edu"])
def test_a_row_of_the_web_is_a_document(tmp_path, tokenizer_folder, recipe):
    manifests = run(recipe, write_corpus(tmp_path / "raw", recipe, PAGES), tokenizer_folder, tmp_path / "data")
    assert {name: manifest.num_documents for name, manifest in manifests.items()} == (
        {"train": 4, "valid": 2} if recipe == "c4" else {"fineweb_edu": 8}
    )
    folder = tmp_path / "data" / next(iter(manifests))
    stream = TokenStream(folder)
    ids = [id_ for id_ in stream.read(0, stream.num_tokens).tolist() if id_ != manifests[folder.name].end_token_id]
    num_repeats = manifests[folder.name].num_documents // 2
    assert load_tokenizer(tokenizer_folder).decode(ids) == num_repeats * "".join(PAGES)


@pytest.mark.parametrize("recipe", ["mini_corpus", "roberta_cc100en"])
def test_robertas_corpora_have_seven_parts(tmp_path, tokenizer_folder, recipe):
    manifests = run(recipe, write_corpus(tmp_path / "raw", recipe, PAGES), tokenizer_folder, tmp_path / "data")
    assert len(manifests) == 7 and all(manifest.num_tokens for manifest in manifests.values())


def test_wikitext_with_its_dictionary_of_words(tmp_path):
    raw = write_corpus(tmp_path / "raw", "wikitext103", ROWS)
    tokenizer = tmp_path / "words"
    assert train_tokenizer(["--input", str(raw / "train*"), "--words", "--output", str(tokenizer)]) == 0
    manifests = run("wikitext103", raw, tokenizer, tmp_path / "data")
    assert {name: manifest.num_documents for name, manifest in manifests.items()} == {"train": 4, "valid": 2, "test": 2}
    stream, dictionary = TokenStream(tmp_path / "data" / "train"), load_tokenizer(tokenizer)
    words = [dictionary.id_to_token(id_) for id_ in stream.read(0, stream.num_tokens).tolist()]
    end = "<|endoftext|>"
    articles = f"{LIGHTHOUSE}\n\n\n{SONG}\n".replace("\n", f" {end} ").split()
    assert words == 2 * articles
    [source, *_] = (
        json.loads(line) for line in (tmp_path / "data" / "train" / "sources.jsonl").read_text().splitlines()
    )
    assert source["num_unknown"] == 2  # WikiText's own, on purpose


def test_wikitext_with_bpe(tmp_path, tokenizer_folder):
    raw = write_corpus(tmp_path / "raw", "wikitext103", ROWS)
    manifests = run("wikitext103", raw, tokenizer_folder, tmp_path / "data")
    assert [manifest.num_documents for manifest in manifests.values()] == [4, 2, 2]


@pytest.mark.parametrize("recipe", ["c4", "fineweb_edu", "wikitext103"])
def test_a_recipe_says_what_it_takes_and_where_its_text_comes_from(recipe):
    path = CORPORA / f"{recipe}.yaml"
    comment = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    for said in ("tokens/s" if recipe == "wikitext103" else "core hours", "Expected", "docs/data.md", "Paths are"):
        assert said in comment
    assert all("hf://datasets/" in part.obtain for part in read_corpus_recipe(path))
