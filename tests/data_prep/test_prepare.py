"""One command turns text, or a recipe, into everything that training needs; repeated after a kill, it resumes."""

import html.parser
import json
import os
import shlex
import shutil

import pytest
import yaml

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import read_counts
from data_prep.documents.document_rules import DocumentRules
from data_prep.prepare import main
from data_prep.shards.manifest import read_manifest
from data_prep.shards.mixture import read_mixture
from data_prep.tables.route_table_file import read_route_table
from data_prep.tokenizing.output_folder import locked_folder
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.tokenizing.test_interrupted import RUN_JOBS, contents, killed_before_step, run_jobs_here
from train.main import main as train

PARTS = {
    "books": {"input": "books/*.txt", "document_rule": "line", "lines_per_document": 2, "epochs": 0.5},
    "web": {"input": ["web/*.jsonl.gz"]},
    "valid": {"input": ["valid"], "epochs": 0},
}
TABLE = ["--num_experts", "8", "--ep_size", "2", "--context_length", "8"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)


@pytest.fixture
def prepare(tmp_path, tokenizer_folder, documents):
    """Write raw shards and a recipe; return a function that runs the command on them, with further arguments."""
    for name in ("books/a.txt", "books/b.txt", "web/c.jsonl.gz", "valid/d.txt"):
        write_raw_shard(tmp_path / "raw" / name, documents)
    write_recipe(tmp_path, {"parts": PARTS})

    def run(*more, corpus=("recipe.yaml", "--raw", "raw"), output="data"):
        paths = [str(tmp_path / each) if not each.startswith("--") else each for each in corpus]
        options = ["--tokenizer", str(tokenizer_folder), "--output", str(tmp_path / output)]
        return main([*paths, *options, "--backend", "tokenizers", *more])

    return run


def write_recipe(folder, content):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_every_part_becomes_a_folder_by_its_own_rules(prepare, tmp_path):
    assert prepare() == 0
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


def test_plain_text_becomes_one_part_beside_its_held_out_text(prepare, tmp_path, capsys):
    assert prepare(*TABLE, "--valid", str(tmp_path / "raw" / "valid"), corpus=("raw/books", "raw/web")) == 0
    mixture = read_mixture(tmp_path / "data")
    assert [part.stream.folder.name for part in mixture.parts] == ["train"]
    assert mixture.parts[0].stream.manifest.num_documents == 3 * 3
    assert read_manifest(tmp_path / "data" / "valid").num_documents == 3
    table = read_route_table(tmp_path / "data" / "balanced_8_ep2.safetensors")
    assert (table.num_experts, table.ep_size, table.corpus_digest) == (8, 2, mixture.corpus_digest)
    out = capsys.readouterr().out
    assert f"{tmp_path}/data/valid: " in out and "imbalance of batches" in out  # the table is checked on held-out text
    assert "tokens of text that is not trained on" in out


def test_the_next_command_trains(prepare, tmp_path, capsys, monkeypatch):
    for number in range(20):
        write_raw_shard(tmp_path / "raw" / f"books/more{number}.txt", ["many words, and more of them " * 20])
    options = ["--num_experts", "8", "--context_length", "8", "--eval_fraction", "0.2"]
    assert prepare(*options, corpus=("raw/books",)) == 0
    out = capsys.readouterr().out
    (command,) = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
    assert (
        "validation: eval_fraction 0.2 holds " in out and " groups of 64 sequences of 8 tokens out of training" in out
    )
    recipe = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "sparse_layers": [1]}
    recipe |= {
        "max_steps": 1,
        "global_batch_size": 2,
        "micro_batch_size": 2,
        "lr": 0.01,
        "run_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    program, script, *arguments = shlex.split(command.replace("RECIPE.yaml", str(tmp_path / "recipe.yaml")))
    assert (program, script) == ("python", "launch/train.py")
    assert train([*arguments, "--dry_run"]) == 0


def test_without_a_number_of_experts_it_stops_before_the_table_and_says_so(prepare, tmp_path, capsys):
    assert prepare() == 0
    assert "next: repeat this command with --num_experts E --ep_size RANKS" in capsys.readouterr().out
    assert (tmp_path / "data" / "report.html").is_file()
    assert not list((tmp_path / "data").glob("balanced*"))
    assert prepare(*TABLE) == 0
    assert (tmp_path / "data" / "balanced_8_ep2.safetensors").is_file()


def test_the_report_is_a_page_of_the_parts_the_tokens_and_the_table(prepare, tmp_path):
    parts = {**PARTS, "b&w": {"input": ["web"]}}
    write_recipe(tmp_path, {"parts": parts})
    assert prepare(*TABLE) == 0
    page = (tmp_path / "data" / "report.html").read_text()
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert tags.count("h1") == 1 and tags.count("img") == 2 and "script" not in tags
    assert "<td>b&amp;w</td>" in page and "<td>web</td>" in page
    assert "end token" in page and "&lt;|endoftext|&gt; (id 259)" in page
    assert "launch/train.py --config RECIPE.yaml" in page


def test_unknown_tokens_are_counted_in_the_summary(prepare, tmp_path, capsys):
    words = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "</s>": 2}, "unk_token": "<unk>"}
    end = {"id": 3, "content": "<end>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    description = {"version": "1.0", "model": words, "added_tokens": [{**end, "normalized": False}]}
    description |= {"pre_tokenizer": {"type": "Whitespace"}, "normalizer": None, "decoder": None}
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text(json.dumps({**description, "post_processor": None}))
    write_raw_shard(tmp_path / "a.txt", ["a b a c", "a"])
    arguments = ["--tokenizer", str(tmp_path / "words"), "--end_token", "<end>"]
    assert main([str(tmp_path / "a.txt"), *arguments, "--output", str(tmp_path / "data")]) == 0
    heads, values = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("part ", "train  "))]
    assert values[: heads.index("unknown") + len("unknown")].split()[-1] == "2"


def test_finished_parts_are_kept_and_missing_ones_written(prepare, tmp_path, capsys):
    prepare()
    kept = (tmp_path / "data" / "books" / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "data" / "web")
    assert prepare() == 0
    out = capsys.readouterr().out
    assert "books: already finished" in out and "web: 3 documents" in out
    assert (tmp_path / "data" / "books" / "manifest.json").stat().st_mtime_ns == kept
    assert (tmp_path / "data" / "web" / "manifest.json").exists()


def test_a_second_run_writes_the_same_bytes_and_counts_nothing(prepare, tmp_path, monkeypatch):
    prepare(*TABLE)
    first = contents(tmp_path / "data")
    monkeypatch.setattr("data_prep.preparing.table_of_corpus.write_counts", None)
    assert prepare(*TABLE) == 0
    assert contents(tmp_path / "data") == first


class Killed(BaseException):
    """Ends the command like a kill: nothing catches it."""


STAGES = [
    "preparing.tokenize_parts.tokenize_folder",
    "preparing.corpus.write_mixture",
    "preparing.table_of_corpus.write_counts",
    "preparing.table_of_corpus.write_route_table",
    "prepare.check_table",
    "preparing.report.atomic_file",
]


def test_a_kill_at_one_stage_after_the_other_changes_nothing_in_the_end(prepare, tmp_path, monkeypatch):
    write_recipe(tmp_path, {"parts": {name: PARTS[name] for name in ("web", "valid")}})
    prepare(*TABLE, output="untouched")
    for stage in STAGES:
        with monkeypatch.context() as patch:
            patch.setattr(f"data_prep.{stage}", killed)
            with pytest.raises(Killed):
                prepare(*TABLE, output="killed")
    assert prepare(*TABLE, output="killed") == 0
    assert without_paths(tmp_path / "killed") == without_paths(tmp_path / "untouched")


def killed(*_, **__):
    raise Killed


@pytest.mark.slow(reason="kills 26 commands, each before another change of the disk, and repeats them")
@pytest.mark.parametrize("first", range(2))
def test_a_kill_before_any_step_changes_nothing_in_the_end(prepare, tmp_path, first):
    write_recipe(tmp_path, {"parts": {name: PARTS[name] for name in ("web", "valid")}})
    prepare(*TABLE, output="untouched")
    expected = without_paths(tmp_path / "untouched")
    step, is_killed = 4 * first, True
    while is_killed:
        output = f"killed{step}"
        is_killed = killed_before_step(step, lambda output=output: prepare(*TABLE, output=output))
        assert prepare(*TABLE, output=output) == 0
        assert without_paths(tmp_path / output) == expected
        step += 8
    assert step > 80


def test_one_command_writes_a_folder_at_a_time(prepare, tmp_path, capsys):
    with locked_folder(tmp_path / "data"):
        assert prepare() == 2
    assert "is being written by another process" in capsys.readouterr().err


def without_paths(folder):
    """The contents of a folder, without its own name in the report."""
    return {name: content.replace(os.fsencode(folder.name), b"") for name, content in contents(folder).items()}


def test_a_dry_run_estimates_and_writes_nothing(prepare, tmp_path, capsys, monkeypatch):
    assert prepare("--dry_run") == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "data").exists()
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    sizes = {name: sum(path.stat().st_size for path in (tmp_path / "raw" / name).iterdir()) for name in PARTS}
    prepare()
    for name in PARTS:
        manifest, line = read_manifest(tmp_path / "data" / name), lines[name]
        assert line[1] == str(len(list((tmp_path / "raw" / name).iterdir())))
        assert line[2:4] == [f"{sizes[name]}", "B"]
        assert line[4] == f"{manifest.num_tokens / 1e6:.1f}" and line[6] == f"{sizes[name] / manifest.num_tokens:.2f}"
    assert "time: about " in out and "disk: about " in out and "are free" in out


def test_held_out_text_is_not_trained_on(prepare, tmp_path, capsys):
    assert prepare("--valid", str(tmp_path / "raw" / "valid"), corpus=("raw",)) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path}/raw/valid/d.txt is in train, which is trained on, and in valid, which is held out" in err
    (tmp_path / "linked").symlink_to(tmp_path / "raw" / "valid")
    write_recipe(tmp_path, {"parts": {**PARTS, "all": {"input": str(tmp_path / "linked")}}})
    assert prepare("--dry_run") == 2
    assert "linked/d.txt is in all, which is trained on, and in valid" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_output_may_lie_in_the_corpus(prepare, tmp_path, capsys):
    corpus = ("raw/books",)
    for _ in range(2):
        assert prepare(*TABLE, corpus=corpus, output="raw/books/out") == 0
    assert "train: already finished" in capsys.readouterr().out
    assert prepare("--dry_run", corpus=corpus, output="raw/books/out") == 0
    assert prepare(corpus=("raw/books/*.txt",), output="raw") == 0  # and the corpus in the output


def test_overwrite_starts_over_as_the_error_says(prepare, tmp_path, capsys):
    prepare(*TABLE, output="replaced")
    others = {**PARTS, "web": {"input": "books/*.txt"}}
    write_recipe(tmp_path, {"parts": others})
    assert prepare(*TABLE, output="replaced") == 2
    assert "c.jsonl.gz, which this command does not read; give it too, give another --output, or --overwrite" in (
        capsys.readouterr().err
    )
    assert prepare(*TABLE, "--overwrite", output="replaced") == 0
    assert "already finished" not in capsys.readouterr().out
    prepare(*TABLE, output="untouched")
    assert without_paths(tmp_path / "replaced") == without_paths(tmp_path / "untouched")


def test_held_out_text_shorter_than_a_context_is_a_warning(prepare, tmp_path, capsys):
    assert prepare("--num_experts", "8", "--context_length", "64") == 0
    out, err = capsys.readouterr()
    assert f"warning: the route table was not measured: {tmp_path}/data/valid holds 59 tokens, not one context" in err
    assert "next: python launch/train.py" in out
    assert (tmp_path / "data" / "report.html").is_file()


def test_held_out_text_is_counted_by_all_workers(prepare, monkeypatch):
    found = []

    def record(*arguments, num_workers, **options):
        found.append(num_workers)
        return count_folders(*arguments, **options)

    monkeypatch.setattr("data_prep.preparing.table_of_corpus.count_folders", record)
    assert prepare(*TABLE, "--workers", "3") == 0
    assert found == [3, 3]  # the text to train on, and that to measure the table on
