"""Ranks under mpirun write the same bytes of counts as one process; damage that one rank finds ends all of them."""

import shutil

import pytest

from tests.distributed.mpi.mpirun import make_data, needs_mpirun, run

pytestmark = [pytest.mark.distributed, needs_mpirun]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), [50 * number**2 for number in range(7)])


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize(
    "key", [["token"], ["previous"], ["bigram", "--num_buckets", 99], ["position", "--context_length", 64]], ids=str
)
def test_ranks_count_what_one_process_counts(data, tmp_path, key, num_ranks):
    for number in (0, num_ranks):
        arguments = [data / "tokens", "--hash_key", *key, "--output", tmp_path / str(number)]
        assert run("count_tokens", *arguments, num_ranks=number)[0] == 0
    assert (tmp_path / "0").read_bytes() == (tmp_path / str(num_ranks)).read_bytes()


def test_ranks_split_frequent_tokens_as_one_process_does(data, tmp_path):
    assert run("count_tokens", data / "tokens", "--output", tmp_path / "counts", num_ranks=0)[0] == 0
    arguments = ["--counts", tmp_path / "counts", "--tokens", data / "tokens", "--num_experts", 16]
    for number in (0, 3):
        output = ["--split_frequent_tokens", "--context_length", 64, "--output", tmp_path / str(number)]
        status, report, errors = run("build_table", *arguments, *output, num_ranks=number)
        assert status == 0, errors
        assert report.count("frequent tokens split by the token before them") == 1  # rank 0 reports for all
    assert (tmp_path / "0").read_bytes() == (tmp_path / "3").read_bytes()


def test_a_damaged_token_shard_ends_all_counting_ranks(data, tmp_path):
    shutil.copytree(data / "tokens", tmp_path / "tokens")
    tokens = next((tmp_path / "tokens").glob("00003*.bin"))
    tokens.write_bytes(b"\0\0" + tokens.read_bytes()[2:])
    status, _, errors = run("count_tokens", tmp_path / "tokens", num_ranks=3)
    assert (status, errors.count(f"{tokens} is damaged: bytes 0..")) == (2, 1)
    assert not (tmp_path / "tokens" / "counts.safetensors").exists()
