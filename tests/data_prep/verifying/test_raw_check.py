"""Raw text is compared with the tokens that were made of it: what is missing, other or new is named."""

import shutil

import pytest

from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.verify import main


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
