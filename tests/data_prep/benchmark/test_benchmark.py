"""The benchmark times every stage on the same text, and refuses to compare cases that do different work."""

import pytest

from data_prep.benchmark import measure
from data_prep.benchmark.cases import CASES, LARGE_DOCUMENT, REFERENCE, write_files, write_large_document
from data_prep.benchmark.measure import Measurement, main, table
from data_prep.embedded_corpus import write_corpus


@pytest.fixture(scope="module")
def files(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("benchmark")
    write_corpus(folder / "text")
    (folder / "files").mkdir()
    return write_files(folder / "files", [folder / "text" / "train"], str(tokenizer_folder), num_bytes=20_000)


@pytest.mark.parametrize("name", [name for name in CASES if name != LARGE_DOCUMENT])
def test_every_case_returns_the_amount_of_its_work(files, name, monkeypatch):
    monkeypatch.setattr("data_prep.benchmark.cases.COUNTED_TOKENS", 1)
    monkeypatch.setattr("data_prep.benchmark.cases.LOADED_TOKENS", 1)
    amount, case = CASES[name].make(files)(), CASES[name]
    if case.tokenizes_the_text or name.startswith("count"):
        assert amount == CASES[REFERENCE].make(files)()
    elif case.unit == CASES["read .txt"].unit:
        assert amount == sum(map(len, files.documents())) > 19_000
    else:
        assert amount > 1000


def test_the_large_document_is_one_document(files):
    write_large_document(files, num_bytes=50_000)
    assert (files.folder / "large.txt").stat().st_size >= 50_000
    assert CASES[LARGE_DOCUMENT].make(files)() > CASES[REFERENCE].make(files)()


def test_the_command_prints_a_line_per_case(tmp_path, tokenizer_folder, capsys):
    write_corpus(tmp_path)
    arguments = ["--input", tmp_path / "train", "--tokenizer", tokenizer_folder, "--megabytes", 0.01, "--repeats", 1]
    assert main([*map(str, arguments), "--only", "read .txt"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["read .txt", "read .txt.gz", "read .txt.xz", "read .txt.zst"]
    assert all(int(line.split()[-1].replace(",", "")) > 20 for line in lines)  # peak MiB of Python with its libraries


def test_cases_that_find_different_numbers_of_tokens_are_not_compared():
    measured = {REFERENCE: [Measurement(10, 1.0, 1)], "tokenize_shards, gigatoken": [Measurement(9, 1.0, 1)]}
    with pytest.raises(ValueError, match="find different numbers of tokens: .* 10, .* 9"):
        measure._check_same_amounts(measured)


def test_the_table_has_medians_and_ratios():
    seconds = {REFERENCE: [4.0, 2.0, 8.0], "tokenize_shards, gigatoken": [1.0, 1.0, 1.0]}
    measured = {name: [Measurement(8_000_000, each, 2**21) for each in runs] for name, runs in seconds.items()}
    _, first, second = table(measured).splitlines()
    assert first.split()[-7:] == ["2.00", "1.00", "4.00", "M", "tokens/s", "1.0", "2"]
    assert second.split()[-7:] == ["8.00", "8.00", "8.00", "M", "tokens/s", "4.0", "2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats 0 must be at least 1"),
        (["--megabytes", "0"], "--megabytes 0 above 0"),
        (["--only", "paint"], "--only 'paint' matches no case; the cases are: tokenizers' own encode_batch; "),
    ],
)
def test_options_with_nothing_to_measure_are_refused(options, message, capsys):
    assert main(["--input", "text", "--tokenizer", "tokenizer", *options]) == 2
    assert message in capsys.readouterr().err
