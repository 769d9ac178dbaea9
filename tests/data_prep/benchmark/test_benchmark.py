"""The benchmark times every stage on the same text, and refuses to compare cases that do different work."""

import pytest

from data_prep.benchmark import measure
from data_prep.benchmark.cases import CASES, LARGE_DOCUMENT, REFERENCE, write_files, write_large_document
from data_prep.benchmark.cold import COLD, VERIFIED, write_cold_shards
from data_prep.benchmark.measure import Measurement, main, table
from data_prep.embedded_corpus import write_corpus
from data_prep.shards.block_sums import BlockSums
from data_prep.shards.token_stream import TokenStream


@pytest.fixture(scope="module")
def files(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("benchmark")
    write_corpus(folder / "text")
    (folder / "files").mkdir()
    files = write_files(folder / "files", [folder / "text" / "train"], str(tokenizer_folder), num_bytes=20_000)
    write_cold_shards(files.folder, num_bytes=40_000)
    return files


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


def test_cold_shards_repeat_the_tokens_and_one_copy_is_verified(files, monkeypatch):
    monkeypatch.setattr(BlockSums, "_read", lambda *_: pytest.fail("digests are read"))
    stream = TokenStream(files.folder / VERIFIED)
    tokens = TokenStream(files.folder / "tokens")
    assert stream.num_tokens * 2 >= 40_000 and stream.num_tokens % tokens.num_tokens == 0
    start = stream.num_tokens - tokens.num_tokens
    assert stream.read(start, 9).tolist() == stream.read(0, 9).tolist()
    with pytest.raises(pytest.fail.Exception, match="digests are read"):
        TokenStream(files.folder / COLD).read(0, 1)


def test_a_cold_case_reads_from_the_disk_or_says_that_it_did_not(tmp_path, tokenizer_folder, capsys):
    write_corpus(tmp_path)
    options = ["--megabytes", 0.01, "--cold_megabytes", 4, "--repeats", 1, "--only", "cold, all", "--scratch", tmp_path]
    status = main(["--input", str(tmp_path / "train"), "--tokenizer", str(tokenizer_folder), *map(str, options)])
    printed = capsys.readouterr()
    if status:  # a file system in memory
        assert "'load sequences, cold, all' needs" in printed.err and "the rest was in memory" in printed.err
    else:
        assert 1 <= float(printed.out.split()[-2]) < 1.2


def test_a_cold_case_that_read_less_than_it_needs_is_refused():
    name = "load sequences, cold, all"
    measure._check_disk_was_read({name: [Measurement(10, 1.0, 1, disk_bytes=20)], REFERENCE: [Measurement(10, 1.0, 1)]})
    with pytest.raises(ValueError, match="'load sequences, cold, all' needs 20 bytes of a disk but read 19"):
        measure._check_disk_was_read({name: [Measurement(10, 1.0, 1, n) for n in (25, 19)]})


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
    cold = {"load sequences, cold, all": [Measurement(10, 1.0, 2**20, disk_bytes) for disk_bytes in (30, 61, 20)]}
    assert table(cold).splitlines()[1].split()[-2:] == ["3.05", "1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats 0 must be at least 1"),
        (["--megabytes", "0"], "--megabytes 0 and --cold_megabytes 1074 above 0"),
        (["--cold_megabytes", "-1"], "--megabytes 16 and --cold_megabytes -1 above 0"),
        (["--only", "paint"], "--only 'paint' matches no case; the cases are: tokenizers' own encode_batch; "),
    ],
)
def test_options_with_nothing_to_measure_are_refused(options, message, capsys):
    assert main(["--input", "text", "--tokenizer", "tokenizer", *options]) == 2
    assert message in capsys.readouterr().err
