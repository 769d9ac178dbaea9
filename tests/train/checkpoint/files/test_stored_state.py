"""A training state is read back in other slices than those it was written in."""

import os
import pickle
import re

import pytest
import torch

from train.checkpoint.files.stored_state import WEIGHT, StateShard, StoredState, write_shards

WHOLE = torch.arange(10.0)


@pytest.fixture
def stored(tmp_path) -> StoredState:
    """Weights 0 to 3 and 7 to 9 from one rank; weights 4 to 6 and all of a moment from another."""
    write_shards(
        tmp_path / "rank_0.safetensors",
        [StateShard("h.0:w", WEIGHT, 0, WHOLE[:4]), StateShard("h.0:w", WEIGHT, 7, WHOLE[7:])],
    )
    second = [StateShard("h.0:w", WEIGHT, 4, WHOLE[4:7]), StateShard("h.0:w", "exp_avg", 0, -WHOLE)]
    write_shards(tmp_path / "rank_1.safetensors", second)
    return StoredState(sorted(tmp_path.glob("*.safetensors")))


@pytest.mark.parametrize(("begin", "end"), [(0, 10), (0, 4), (3, 8), (5, 6), (9, 10), (2, 2)])
def test_any_slice_is_assembled(stored, begin, end):
    out = torch.full((end - begin,), -1.0)
    stored.read(WEIGHT, "h.0:w", begin, out)
    assert torch.equal(out, WHOLE[begin:end])


def test_kinds_are_separate(stored):
    out = torch.empty(2)
    stored.read("exp_avg", "h.0:w", 3, out)
    assert out.tolist() == [-3.0, -4.0]


@pytest.mark.parametrize(("kind", "name", "first_lacking"), [(WEIGHT, "h.0:w", 10), ("exp_avg", "other", 8)])
def test_missing_elements_are_an_error(stored, kind, name, first_lacking):
    message = f"the checkpoint lacks {kind} of {name} from element {first_lacking} on"
    with pytest.raises(ValueError, match=re.escape(message)):
        stored.read(kind, name, 8, torch.empty(4))


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_in_place_of_a_state_is_refused_and_not_run(tmp_path):
    path, folder = tmp_path / "rank_00000.safetensors", tmp_path / "attacked"
    path.write_bytes(pickle.dumps(Attack(folder)))
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a safetensors file")):
        StoredState([path])
    assert not folder.exists()
    pickle.loads(path.read_bytes())  # the file is indeed an attack
    assert folder.is_dir()
