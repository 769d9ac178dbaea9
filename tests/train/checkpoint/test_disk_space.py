"""The size of a run's checkpoints is compared with the free space before the run."""

from collections import namedtuple

import pytest

from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import count_parameters
from train.checkpoint import disk_space
from train.checkpoint.disk_space import MIB, check_disk_space, checkpoint_bytes, num_checkpoints
from train.config.run_config import RunConfig

NETWORK = HashGPTConfig(
    vocab_size=100, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16
)
PARAMETERS = count_parameters(NETWORK).total


def run_config(**fields) -> RunConfig:
    return RunConfig("shards", **fields)


@pytest.fixture
def free(monkeypatch):
    """Set the number of free bytes on the disk."""

    def set_free(number: int) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(0, 0, number))

    return set_free


@pytest.mark.parametrize(
    ("fields", "bytes_per_parameter"),
    [({}, 4 + 4 + 8), ({"precision": "bf16"}, 2 + 4 + 8), ({"optimizer": "sgd"}, 4 + 4)],
)
def test_a_checkpoint_holds_model_master_weights_and_moments(fields, bytes_per_parameter):
    assert checkpoint_bytes(run_config(**fields), NETWORK) == bytes_per_parameter * PARAMETERS


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"max_steps": 100, "save_every": 10}, 11),
        ({"max_steps": 100, "save_every": 0}, 1),
        ({"max_steps": 100, "save_every": 10, "keep_last": 2}, 3),
        ({"max_steps": 100, "save_every": 10, "keep_last": 2, "keep_every": 50}, 5),
    ],
)
def test_pruned_checkpoints_do_not_count(fields, number):
    assert num_checkpoints(run_config(**fields)) == number


def test_a_disk_without_room_for_one_checkpoint_is_refused_with_both_sizes(free, tmp_path):
    free(PARAMETERS)
    with pytest.raises(
        ValueError, match=rf"takes {16 * PARAMETERS / MIB:,.0f} MiB, but .* has {PARAMETERS / MIB:,.0f}"
    ):
        check_disk_space(run_config(run_dir=str(tmp_path / "not" / "yet")), NETWORK)


def test_a_disk_that_will_fill_up_has_a_notice(free):
    config = run_config(max_steps=100, save_every=10)
    free(5 * checkpoint_bytes(config, NETWORK))
    assert "11 checkpoints" in check_disk_space(config, NETWORK)
    free(11 * checkpoint_bytes(config, NETWORK))
    assert check_disk_space(config, NETWORK) is None
