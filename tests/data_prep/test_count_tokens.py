"""The command counts token shards and writes the counts beside them."""

import pytest

from data_prep import count_tokens
from data_prep.counts.counts_file import read_counts
from tests.data_prep.shards.test_token_stream import write_folder


def test_the_command_writes_counts_beside_the_tokens(tmp_path, capsys):
    assert count_tokens.main([str(write_folder(tmp_path))]) == 0
    assert "12 tokens, 8 of 10 token ids occur" in capsys.readouterr().out
    assert read_counts(tmp_path / "counts.safetensors").num_tokens == 12


def test_several_folders_need_an_output(tmp_path, capsys):
    assert count_tokens.main([str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert "2 folders are given; name the file for their joint counts with --output" in capsys.readouterr().err


def test_the_command_writes_counts_of_a_key_under_their_own_name(tmp_path, capsys):
    assert count_tokens.main([str(write_folder(tmp_path)), "--hash_key", "bigram", "--num_buckets", "6"]) == 0
    assert "of 6 bigram keys occur" in capsys.readouterr().out
    assert read_counts(tmp_path / "counts_bigram.safetensors").num_buckets == 6


@pytest.mark.usefixtures("workers_for_few_tokens")
def test_the_number_of_processes_does_not_change_a_byte(tmp_path):
    folder = write_folder(tmp_path)
    for num_workers in (1, 2):
        arguments = [str(folder), "--hash_key", "previous", "--workers", str(num_workers), "--output"]
        assert count_tokens.main([*arguments, str(tmp_path / f"counts{num_workers}")]) == 0
    assert (tmp_path / "counts1").read_bytes() == (tmp_path / "counts2").read_bytes()
