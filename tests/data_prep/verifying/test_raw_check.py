"""Raw text is compared with the tokens that were made of it: what is missing, other or new is named."""

import shutil

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.verify import main
from data_prep.verifying.raw_check import verify_raw as verify_raw_text
from tests.data_prep.documents.raw_shards import write_raw_shard


@pytest.fixture
def folder(raw_folder, tmp_path, tokenizer_folder):
    (raw_folder / "large.txt").write_text("a line\n\n" * 300)  # is cut
    tokenize_folder([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens", shard_bytes=500)
    return tmp_path / "tokens"


def verify_raw(folder, raw, capsys):
    status = main([str(folder), "--raw", str(raw)])
    is_intact, *lines = capsys.readouterr().out.splitlines()
    assert f"{folder} is intact (" in is_intact
    return status, lines


def test_the_same_text_is_found_wherever_it_lies_and_whenever_it_was_copied(folder, raw_folder, tmp_path, capsys):
    assert verify_raw(folder, raw_folder, capsys) == (0, ["the raw text is that of the tokens"])
    shutil.copytree(raw_folder, tmp_path / "elsewhere" / "raw", copy_function=shutil.copyfile)
    assert verify_raw(folder, tmp_path / "elsewhere" / "raw", capsys)[0] == 0


def test_other_missing_and_new_text_is_named(folder, raw_folder, capsys):
    content = (raw_folder / "large.txt").read_text()
    (raw_folder / "large.txt").write_text(content[:-3] + "x\n\n")  # in the last of its ranges
    (raw_folder / "part0.txt").rename(raw_folder / "new.txt")
    status, [other, missing, new] = verify_raw(folder, raw_folder, capsys)
    assert status == 1
    assert f"raw/part0.txt is missing: {folder}/0000" in missing
    assert f"{raw_folder}/large.txt has digest " in other and "was made of text with " in other
    assert f"{raw_folder}/new.txt is in none of the folders" in new


def test_files_that_were_not_included_are_not_called_new(raw_folder, tmp_path, tokenizer_folder, capsys):
    (raw_folder / "README.md").write_text("not text to train on")
    rules = DocumentRules(include=("*.txt", "*.parquet"))
    tokenize_folder([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens", rules=rules)
    assert verify_raw(tmp_path / "tokens", raw_folder, capsys) == (0, ["the raw text is that of the tokens"])


@pytest.fixture
def two_parts(tmp_path, tokenizer_folder, documents):
    """Two folders of token shards by different rules, beside text that neither reads; return their verify_raw."""
    raw = tmp_path / "raw"
    for name in ("books/a.txt", "books/b.jsonl", "web/c.jsonl"):
        write_raw_shard(raw / name, documents)
    (raw / "web" / "README.md").write_text("not text to train on")
    for part, suffix in (("books", "*.txt"), ("web", "*.jsonl")):
        rules = DocumentRules(include=(suffix,))
        tokenize_folder([raw / part], tokenizer=tokenizer_folder, output=tmp_path / "data" / part, rules=rules)
    folders = [tmp_path / "data" / part for part in ("books", "web")]
    return lambda *names: verify_raw_text(folders, [str(raw / name) for name in names])


def test_the_text_of_every_folder_is_found_by_its_own_rules(two_parts, tmp_path):
    assert two_parts("books/a.txt", "web") == two_parts("books/*.txt", "web") == []
    [problem] = two_parts("books", "web")
    assert f"{tmp_path}/raw/books/b.jsonl is in none of the folders" in problem


def test_text_of_one_folder_that_is_other_is_named(two_parts, tmp_path):
    with open(tmp_path / "raw" / "web" / "c.jsonl", "a") as file:
        file.write('{"text": "more"}\n')
    [problem] = two_parts("books/*.txt", "web")
    assert f"{tmp_path}/raw/web/c.jsonl has digest " in problem and f"{tmp_path}/data/web/00000-c was made" in problem


def test_an_input_that_no_folder_reads_is_refused(two_parts, tmp_path):
    (tmp_path / "raw" / "other").mkdir()
    (tmp_path / "raw" / "other" / "d.parquet").touch()
    with pytest.raises(ValueError, match="none of the 1 files in .*other matches --include"):
        two_parts("books", "web", "other")
