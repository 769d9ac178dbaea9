"""End tokens stand where end_token_rule puts them, whatever the pieces and batches."""

import pytest

from data_prep.documents import pieces
from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawFile
from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing import shard_job, token_batches
from data_prep.tokenizing.tokenize_folder import tokenize_folder

END = "|"


def tokenize(tmp_path, tokenizer_folder, content, *, name="shard.txt", **rules):
    """Tokenize one raw shard; return its tokens as text, with | for the end token, and the starts of its documents."""
    (tmp_path / name).write_text(content)
    tokenize_folder(
        [tmp_path / name], tokenizer=tokenizer_folder, output=tmp_path / "tokens", rules=DocumentRules(**rules)
    )
    stream, tokenizer = TokenStream(tmp_path / "tokens"), load_tokenizer(tokenizer_folder)
    ids = stream.read(0, stream.num_tokens).tolist()
    text = "".join(END if id_ == 259 else tokenizer.decode([id_]) for id_ in ids)
    return text, stream.documents(0).tolist()


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({}, "ax\nbx|cx|"),
        ({"document_rule": "line"}, "ax|bx|cx|"),
        ({"end_token_rule": "fairseq"}, "ax|bx||cx||"),  # the blank line is a newline too
        ({"end_token_rule": "fairseq", "document_rule": "line", "lines_per_document": 2}, "ax|bx|cx|"),
    ],
)
def test_the_end_token_stands_where_the_rule_puts_it(tmp_path, tokenizer_folder, rules, text):
    assert tokenize(tmp_path, tokenizer_folder, "ax\nbx\n\ncx\n\n", **rules)[0] == text
    assert read_manifest(tmp_path / "tokens").rules == DocumentRules(**rules)


def test_with_fairseqs_rule_the_lines_of_rows_end_too(tmp_path, tokenizer_folder):
    content = '{"text": "a\\n\\nb"}\n{"text": "c"}\n'
    assert tokenize(tmp_path, tokenizer_folder, content, name="shard.jsonl", end_token_rule="fairseq")[0] == "a||b|c|"


@pytest.mark.parametrize("end_token_rule", ["gpt2", "fairseq"])
def test_neither_pieces_nor_batches_change_tokens_and_documents(
    tmp_path, tokenizer_folder, monkeypatch, end_token_rule
):
    content = "a few words\nand a longer line of them " * 9 + "\n\nx\n\n" + "more\n" * 50
    expected = tokenize(tmp_path, tokenizer_folder, content, end_token_rule=end_token_rule)
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 16)
    monkeypatch.setattr(pieces, "LONGEST_WORD", 64)
    monkeypatch.setattr(token_batches, "BATCH_CHARACTERS", 20)
    job = shard_job.ShardJob(
        (RawFile(tmp_path / "shard.txt"),),
        "shard",
        tmp_path / "cut",
        "",
        259,
        DocumentRules(end_token_rule=end_token_rule),
    )
    (tmp_path / "cut").mkdir()
    tokenizer = shard_job.ShardTokenizer(tokenizer_folder, backend="tokenizers", num_threads=1)
    shard = shard_job.tokenize_shard(job, tokenizer, on_read=lambda n: None, on_tokens=lambda n: None).shard
    (whole,) = read_manifest(tmp_path / "tokens").shards
    assert (shard.sums_xxh3, shard.index_xxh3) == (whole.sums_xxh3, whole.index_xxh3)
    assert len(expected[1]) == 3 + 1
