"""A table is measured on tokens that it was not built from: as a whole and by batch, in figures and words."""

import html.parser
from dataclasses import replace

import numpy as np
import pytest

from data_prep.check_table import main
from data_prep.counts.count_folders import count_folders
from data_prep.counts.hash_keys import KEYS
from data_prep.shards.mixture import write_mixture
from data_prep.tables.route_table_file import write_route_table
from tests.data_prep.shards.test_token_stream import STREAM, edit_manifest, write_folder
from tests.data_prep.table_checks.test_held_out_load import TABLE, write_long_folder
from tests.data_prep.tables.test_make_route_table import make


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tokens")


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("key", KEYS)
def test_tables_of_every_key_are_checked(tmp_path, folder, capsys, key):
    counts = count_folders([folder], hash_key=key, num_buckets=6, context_length=4)
    write_route_table(tmp_path / "table", make(counts, 2, hash_key=key))
    predicted = ["--predicted", folder] if key == "predicted" else []
    options = ["--context_length", 4, "--batch_tokens", 4, 8, "--against", folder]
    assert run(tmp_path / "table", "--data", folder, *options, *predicted) == 0
    out = capsys.readouterr().out
    assert "8 tokens in contexts of 4" in out and "drift: 0.00% of the tokens differ, 0.000%" in out


def test_status_1_above_the_limits(tmp_path, folder, capsys):
    write_route_table(tmp_path / "table", TABLE)
    arguments = [tmp_path / "table", "--data", folder, "--context_length", 4, "--batch_tokens", 4]
    load_E = np.bincount(np.array(STREAM[:8]) % 4)
    expert, rank = load_E.max() / 2, load_E.reshape(2, 2).sum(axis=1).max() / 4
    assert run(*arguments, "--max_imbalance", expert, "--max_rank_imbalance", rank) == 0
    assert run(*arguments, "--max_imbalance", expert - 0.01) == 1
    assert f"FAILED: expert imbalance, max/mean, {expert:.4f} is above {expert - 0.01}" in capsys.readouterr().err
    assert run(*arguments, "--max_rank_imbalance", rank - 0.01) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_experts", 8], "num_experts=4 but the model has num_experts=8"),
        (["--layer", 1], "--layer 1 is not among the table's 0..0"),
        (["--ep_size", 3], "4 experts cannot be split evenly over ep_size=3 ranks"),
        (["--batch_tokens", 0], "--batch_tokens 0 must be at least 1"),
        (["--context_length", -5], "--context_length -5 must be at least 1; without it, the table's own is used"),
        (["--max_tokens", 0], "--context_length 4 and --max_tokens 0 must be at least 1"),
        (["--num_experts", 0], "--num_experts 0 must be at least 1"),
        (["--ep_size", 0], "--ep_size 0 must be at least 1"),
        (["--max_tokens", -1], "--max_tokens -1 must be at least 1"),
        (["--max_imbalance", "nan"], "--max_imbalance nan must be above 0"),
    ],
)
def test_mistakes_are_named(tmp_path, folder, capsys, options, message):
    write_route_table(tmp_path / "table", TABLE)
    assert run(tmp_path / "table", "--data", folder, "--context_length", 4, *options) == 2
    assert message in capsys.readouterr().err


def test_tokens_of_another_tokenizer_or_a_larger_vocabulary_are_refused(tmp_path, folder, capsys):
    arguments = [tmp_path / "table", "--data", folder, "--context_length", 4]
    write_route_table(tmp_path / "table", replace(TABLE, tokenizer_digest="sha256:o"))
    assert run(*arguments) == 2
    assert "made for tokenizer sha256:o but the tokens were made with sha256:t" in capsys.readouterr().err
    write_route_table(tmp_path / "table", TABLE)
    edit_manifest(folder, lambda values: values.update(vocab_size=11))
    assert run(*arguments) == 2
    assert "has vocab_size=10 but the model has vocab_size=11" in capsys.readouterr().err


@pytest.mark.parametrize("key", KEYS)
def test_tables_are_checked_on_a_mixture(tmp_path, folder, capsys, key):
    """8 tokens of one part, counted 3 times, and the same of another."""
    write_folder(tmp_path / "other")
    write_mixture(tmp_path / "mixture.yaml", {"tokens": 3, "other": 1})
    counts = count_folders([tmp_path], hash_key=key, num_buckets=6, context_length=4)
    write_route_table(tmp_path / "table", make(counts, 2, hash_key=key))
    options = ["--context_length", 4, "--batch_tokens", 4, "--against", tmp_path, "--predicted", tmp_path]
    assert run(tmp_path / "table", "--data", tmp_path, *options) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}: 32 tokens in contexts of 4" in out and "drift: 0.00% of the tokens differ, 0.000%" in out


class Tags(html.parser.HTMLParser):
    """Notes open tags and where pictures come from."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_whole_page_with_its_figures(tmp_path):
    long_folder = write_long_folder(tmp_path / "long")
    counts = count_folders([long_folder])
    write_route_table(tmp_path / "table", make(counts, 4, num_tables=2, ep_size=2))
    write_route_table(tmp_path / "random", make(counts, 4, method="random"))
    options = ["--context_length", 4, "--batch_tokens", 16, 64, "--beside", tmp_path / "random"]
    options += ["--against", long_folder, "--plots", tmp_path / "plots", "--report", tmp_path / "report.html"]
    assert run(tmp_path / "table", "--data", long_folder, *options) == 0
    tags = Tags()
    tags.feed((tmp_path / "report.html").read_text())
    assert tags.open == [] and len(tags.sources) == 2
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in tags.sources)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "imbalance_by_batch.png",
        "load_per_expert.png",
    ]
    text = (tmp_path / "report.html").read_text()
    for expected in ("balanced, layer 1", "random, layer 0", counts.corpus_digest, "worst possible"):
        assert expected in text
