"""The command of a run prints one error line per host, and describes ranks that do not exist yet."""

import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from data_prep.shards.mixture import write_mixture
from data_prep.shards.token_stream import TokenStream
from tests.tiny_run import tiny_run_fields
from train.config.run_config import RunConfig
from train.main import dry_run_ranks, main
from train.processes.ranks import Ranks


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "MPI_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch):
    """Set the environment of a process that a launcher started."""

    def start(*, world_size: int, local_rank: int = 0):
        for name, value in (("RANK", local_rank), ("WORLD_SIZE", world_size), ("LOCAL_RANK", local_rank)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")

    return start


def config(**fields) -> RunConfig:
    return RunConfig("shards", dry_run=True, **fields)


def arguments(tiny_data, **fields) -> list[str]:
    words = []
    for name, value in tiny_run_fields(tiny_data, **fields).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def test_a_dry_run_assumes_as_many_ranks_as_hold_the_experts_once():
    assert dry_run_ranks(config()) == Ranks(rank=0, world_size=1, local_rank=0)
    assert dry_run_ranks(config(ep_size=4)).world_size == 4


def test_a_dry_run_under_a_launcher_assumes_its_ranks(started):
    started(world_size=6)
    assert dry_run_ranks(config(ep_size=2)).world_size == 6


def test_a_dry_run_assumes_the_ranks_that_dry_run_world_size_gives(started):
    started(world_size=2)
    assert dry_run_ranks(config(dry_run_world_size=16, ep_size=4)).world_size == 16


def test_a_dry_run_describes_the_assumed_ranks_and_writes_nothing(tiny_data, tmp_path, capsys):
    words = arguments(tiny_data, run_dir=tmp_path / "run", ep_size=2, global_batch_size=16)
    assert main([*words, "--dry_run", "--dry_run_world_size", "4"]) == 0
    printed = capsys.readouterr().out
    assert "ep_size=2, world of 4" in printed and "Predicted imbalance" in printed
    assert not (tmp_path / "run").exists()


def test_a_dry_run_needs_neither_data_nor_tables(tiny_data, tmp_path, capsys):
    words = arguments(tiny_data, run_dir=tmp_path / "run", train_data=tmp_path / "later", route_table=tmp_path / "t.st")
    assert main([*words, "--eval_data", "none", "--dry_run"]) == 2
    assert "set --vocab_size to describe the run without it" in capsys.readouterr().err
    assert main([*words, "--eval_data", "none", "--dry_run", "--vocab_size", "90"]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'later'}, {tmp_path / 't.st'}: token hashes are assumed" in printed
    assert "Memory per rank" in printed and "Predicted imbalance" not in printed


def test_a_dry_run_takes_the_vocabulary_from_data_without_a_table(tiny_data, tmp_path, capsys):
    words = arguments(tiny_data, run_dir=tmp_path / "run", route_table=tmp_path / "t.st")
    assert main([*words, "--dry_run"]) == 0
    with_data = capsys.readouterr().out
    vocab_size = TokenStream(tiny_data.train).manifest.vocab_size
    assert f"Missing\n  {tmp_path / 't.st'}: token hashes are assumed" in with_data
    assert main([*words, "--dry_run", "--vocab_size", str(vocab_size)]) == 0
    assert capsys.readouterr().out == with_data


def test_a_dry_run_needs_no_data_for_validation(tiny_data, tmp_path, capsys):
    assert main([*arguments(tiny_data, run_dir=tmp_path / "run", eval_data=tmp_path / "later"), "--dry_run"]) == 0
    assert f"Missing\n  {tmp_path / 'later'}: " in capsys.readouterr().out


def test_a_dry_run_names_the_missing_parts_of_a_mixture(tiny_data, tmp_path, capsys):
    mixture = tmp_path / "mixture.yaml"
    write_mixture(mixture, {tmp_path / "later": 1, tiny_data.train: 2, tmp_path / "never": 0})
    assert main([*arguments(tiny_data, run_dir=tmp_path / "run", train_data=mixture), "--dry_run"]) == 0
    assert f"Missing\n  {tmp_path / 'later'}: " in capsys.readouterr().out


def test_a_dry_run_of_ranks_that_do_not_fit_is_refused(tiny_data, capsys):
    assert main([*arguments(tiny_data, ep_size=2), "--dry_run", "--dry_run_world_size", "3"]) == 2
    assert "3 ranks" in capsys.readouterr().err


@pytest.mark.parametrize("local_rank, num_lines", [(0, 1), (1, 0)])
def test_one_process_of_a_host_prints_why_a_run_is_refused(started, capsys, local_rank, num_lines):
    started(world_size=2, local_rank=local_rank)
    assert main(["--config", "nowhere.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == num_lines
    assert all(line.startswith("error: recipe nowhere.yaml does not exist") for line in lines)


@pytest.mark.parametrize("local_rank, num_lines", [(0, 1), (1, 0)])
def test_every_rank_of_a_host_ends_before_the_rendezvous_if_a_shard_has_the_wrong_size(
    started, tiny_data, tmp_path, monkeypatch, capsys, local_rank, num_lines
):
    monkeypatch.setitem(sys.modules, "train.run", SimpleNamespace(run=lambda *_: 0))  # where the ranks would meet
    shutil.copytree(tiny_data.train, tmp_path / "train")
    shard = next((tmp_path / "train").glob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    started(world_size=2, local_rank=local_rank)
    assert main(arguments(tiny_data, run_dir=tmp_path / "run", train_data=tmp_path / "train")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == num_lines and all(str(shard) in line for line in lines)
