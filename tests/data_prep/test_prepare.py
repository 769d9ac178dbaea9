"""A recipe becomes folders of token shards, a mixture and its counts; a stopped command resumes."""

import shutil

import pytest
import yaml

from data_prep.counts.counts_file import read_counts
from data_prep.documents.document_rules import DocumentRules
from data_prep.prepare import main
from data_prep.shards.manifest import read_manifest
from data_prep.shards.mixture import read_mixture
from tests.data_prep.documents.raw_shards import write_raw_shard

PARTS = {
    "books": {"input": "books/*.txt", "document_rule": "line", "lines_per_document": 2, "epochs": 0.5},
    "web": {"input": ["web/*.jsonl.gz"]},
    "valid": {"input": ["valid"], "epochs": 0},
}


@pytest.fixture
def prepare(tmp_path, tokenizer_folder, documents):
    """Write raw shards and a recipe; return a function that runs the command on them, with further arguments."""
    for name in ("books/a.txt", "books/b.txt", "web/c.jsonl.gz", "valid/d.txt"):
        write_raw_shard(tmp_path / "raw" / name, documents)
    write_recipe(tmp_path, {"parts": PARTS})

    def run(*more):
        options = {"raw": tmp_path / "raw", "tokenizer": tokenizer_folder, "output": tmp_path / "data"}
        arguments = [str(each) for name, value in options.items() for each in (f"--{name}", value)]
        return main([str(tmp_path / "recipe.yaml"), *arguments, *more])

    return run


def write_recipe(folder, content):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_every_part_becomes_a_folder_by_its_own_rules(prepare, tmp_path):
    assert prepare("--workers", "2") == 0
    books, web = (read_manifest(tmp_path / "data" / name) for name in ("books", "web"))
    assert books.rules == DocumentRules(document_rule="line", lines_per_document=2)
    assert web.rules == DocumentRules()
    assert [books.num_documents, web.num_documents] == [4, 3]  # 4 lines of each of two books


def test_the_mixture_is_counted_by_its_epochs_without_the_part_of_0_epochs(prepare, tmp_path):
    prepare()
    mixture = read_mixture(tmp_path / "data")
    assert [(part.stream.folder.name, part.epochs) for part in mixture.parts] == [
        ("books", 0.5),
        ("web", 1),
    ]
    counts = read_counts(tmp_path / "data" / "counts.safetensors")
    assert counts.corpus_digest == mixture.corpus_digest
    assert counts.counts[259] == 0.5 * 4 + 3  # end tokens


def test_finished_parts_are_kept_and_missing_ones_written(prepare, tmp_path, capsys):
    prepare()
    kept = (tmp_path / "data" / "books" / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "data" / "web")
    assert prepare() == 0
    out = capsys.readouterr().out
    assert "books: already finished" in out and "web: 3 documents" in out
    assert (tmp_path / "data" / "books" / "manifest.json").stat().st_mtime_ns == kept
    assert (tmp_path / "data" / "web" / "manifest.json").exists()


def test_a_finished_part_that_was_written_by_other_rules_is_refused(prepare, tmp_path, capsys):
    prepare()
    write_recipe(tmp_path, {"parts": PARTS, "end_token_rule": "fairseq"})
    assert prepare() == 2
    assert "books was written with rules DocumentRules(" in (error := capsys.readouterr().err) and "'fairseq'" in error


def test_a_part_without_raw_shards_is_named_with_where_to_obtain_them_before_anything_is_written(
    prepare, tmp_path, capsys
):
    write_recipe(tmp_path, {"parts": {**PARTS, "news": {"input": "news/*.txt", "obtain": "the news agency"}}})
    assert prepare() == 2
    error = capsys.readouterr().err
    assert "part news: " in error and "matches no file" in error and "(obtain news: the news agency)" in error
    assert not (tmp_path / "data").exists()


def test_a_missing_recipe_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml"), "--raw", "raw", "--tokenizer", "tokenizer", "--output", "data"]) == 2
    assert "none.yaml is not a file; give a recipe, such as one of data_prep/corpora/" in capsys.readouterr().err
