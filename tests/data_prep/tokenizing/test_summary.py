"""The summary counts documents, empty ones, skipped records and bytes per token, per raw shard or per folder."""

from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing import summary as module
from data_prep.tokenizing.summary import source_table, warnings
from data_prep.tokenizing.tokenize_folder import tokenize_folder


def cells(table):
    return [line.split() for line in table.splitlines()[1:]]


def test_each_raw_shard_has_a_line_and_many_are_summed_per_folder(tmp_path, tokenizer_folder, monkeypatch):
    for folder, rows in {"one": ["", "zz", "z"], "two": ["z"]}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))
    (tmp_path / "two" / "b.txt").write_text("")
    manifest = tokenize_folder(
        [tmp_path / "one", tmp_path / "two"], tokenizer=tokenizer_folder, output=tmp_path / "tokens"
    )
    # documents, empty, skipped, unknown, tokens with an end token per document, bytes per token
    one, two = ["2", "1", "0", "0", "5", "8.40"], ["1", "0", "0", "0", "2", "7.00"]
    assert cells(source_table(tmp_path / "tokens", manifest)) == [
        ["one/a.jsonl", *one],
        ["two/a.jsonl", *two],
        ["two/b.txt", "0", "0", "0", "0", "0", "-"],
    ]
    monkeypatch.setattr(module, "MOST_LINES", 2)
    assert cells(source_table(tmp_path / "tokens", manifest)) == [["one/", *one], ["two/", *two]]
    assert warnings(manifest) == []


def test_a_corpus_without_text_is_a_warning(tmp_path, tokenizer_folder):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    tokenize_folder([tmp_path / "a.jsonl"], tokenizer=tokenizer_folder, output=tmp_path / "tokens")
    assert "none of the raw shards has any text" in warnings(read_manifest(tmp_path / "tokens"))[0]
