"""A recipe of a corpus is read part by part, and an invalid one is refused with its value."""

import pytest
import yaml

from data_prep.preparing.corpus import VALID_MIXTURE
from data_prep.preparing.report import REPORT_NAME
from data_prep.preparing.table_of_corpus import COUNTS_NAME
from data_prep.shards.mixture import MIXTURE_NAME
from data_prep.tokenizing.corpus_recipe import CorpusPart, read_corpus_recipe
from tests.data_prep.documents.raw_shards import write_raw_shard
from train.processes.project_root import ROOT

CORPORA = ROOT / "data_prep" / "corpora"


def write_recipe(folder, content):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"must have parts, each with a name, and may have end_token_rule; it has \[\]"),
        ({"parts": {}, "colour": 1}, "it has parts, colour"),
        (
            {"parts": {"a": {"inputs": "x"}}},
            "part a must have input, and may have document_rule, .* it is {'inputs'",
        ),
        ({"parts": {"a": {"input": "x", "epochs": -1}}}, "gives 'a' epochs=-1; it must be from 0 to 1,000,000"),
        ({"parts": {"a": {"input": "x", "epochs": float("inf")}}}, "gives 'a' epochs=inf, which is not a number"),
        ({"parts": {"a": {"input": "x", "epochs": 0}}}, "has no part with epochs above 0"),
        ({"parts": {"a": {"input": None}}}, "part a: input=None must be a path, or a list of paths"),
        ({"parts": {"a": {"input": []}}}, r"part a: input=\[\] must be a path, or a list of paths"),
        ({"parts": {"a": {"input": "x", "text_field": 3}}}, "part a: text_field=3 must be a name"),
        ({"parts": {"a": {"input": "x", "lines_per_document": 2.5}}}, "lines_per_document=2.5 must be an integer"),
        ({"parts": {"a": {"input": "x", "document_rule": "page"}}}, "part a: document_rule 'page' is not one of auto"),
        ({"parts": {"../a": {"input": "x"}}}, "the name '../a' must be that of a folder"),
        (
            {"parts": {"a": {"input": "x"}}, "end_token_rule": "bert"},
            "part a: end_token_rule 'bert' is not one of gpt2, fairseq",
        ),
    ],
)
def test_an_invalid_recipe_is_refused_with_its_value(tmp_path, content, message):
    write_recipe(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        read_corpus_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "",
        MIXTURE_NAME,
        VALID_MIXTURE,
        COUNTS_NAME,
        REPORT_NAME,
        "balanced_64_ep8.safetensors",
        "Report.HTML",
        "a/b",
        "..",
        ".a",
    ],
)
def test_a_part_is_named_as_no_file_that_prepare_writes(tmp_path, name):
    write_recipe(tmp_path, {"parts": {name: {"input": "x"}}})
    with pytest.raises(ValueError, match=f"part {name}: the name {name!r} must be that of a folder, and not end with"):
        read_corpus_recipe(tmp_path / "recipe.yaml")


def test_a_weight_is_refused_with_the_name_of_epochs(tmp_path):
    write_recipe(tmp_path, {"parts": {"a": {"input": "x", "weight": 2}}})
    with pytest.raises(ValueError, match="part a: weight is now epochs, .* per epoch of the mixture; rename it"):
        read_corpus_recipe(tmp_path / "recipe.yaml")


def test_a_part_that_occurs_twice_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("parts:\n  a: {input: x}\n  a: {input: y}\n")
    with pytest.raises(ValueError, match="recipe.yaml names 'a' twice; name it once"):
        read_corpus_recipe(tmp_path / "recipe.yaml")


def test_epochs_may_be_a_fraction(tmp_path):
    write_recipe(tmp_path, {"parts": {"a": {"input": "x", "epochs": "1/3"}}})
    assert read_corpus_recipe(tmp_path / "recipe.yaml")[0].epochs == "1/3"


def test_the_recipe_of_the_mini_corpus_differs_from_the_real_one_only_in_where_to_obtain_it():
    mini, real = (read_corpus_recipe(CORPORA / f"{name}.yaml") for name in ("mini_corpus", "roberta_cc100en"))
    assert [vars(part) | {"obtain": ""} for part in mini] == [vars(part) | {"obtain": ""} for part in real]
    assert all(part.obtain for part in real)
    assert [part.epochs for part in real] == [1] * 6 + [0]


def test_the_folder_of_raw_text_may_have_brackets_or_be_a_url(tmp_path):
    raw = tmp_path / "raw [v1]"
    write_raw_shard(raw / "a" / "1.txt", ["one"])
    for given in ("a/*.txt", "a", "a/1.txt"):
        assert [shard.path.name for shard in CorpusPart("a", [given]).find_raw_shards(raw)] == ["1.txt"]
    part = CorpusPart("a", ["a/*.txt", "https://host/b.txt", "hf:c"])
    assert part.inputs("s3://bucket/raw/") == ["s3://bucket/raw/a/*.txt", "https://host/b.txt", "hf:c"]


def test_a_part_may_include_some_files(tmp_path):
    for name in ("1.txt", "README.md"):
        write_raw_shard(tmp_path / "raw" / name, ["one"])
    write_recipe(tmp_path, {"parts": {"a": {"input": ".", "include": "*.txt"}}})
    (part,) = read_corpus_recipe(tmp_path / "recipe.yaml")
    assert [shard.path.name for shard in part.find_raw_shards(tmp_path / "raw")] == ["1.txt"]
    write_recipe(tmp_path, {"parts": {"a": {"input": ".", "include": [3]}}})
    with pytest.raises(ValueError, match=r"part a: include=\[3\] must be a pattern such as"):
        read_corpus_recipe(tmp_path / "recipe.yaml")


def test_a_message_does_not_grow_with_a_recipe(tmp_path):
    for content in ({"parts": {"a": ["x"] * 5_000}}, {"parts": {"a": {"input": [7] * 5_000}}}):
        write_recipe(tmp_path, content)
        with pytest.raises(ValueError) as error:
            read_corpus_recipe(tmp_path / "recipe.yaml")
        assert len(str(error.value)) < 1000
