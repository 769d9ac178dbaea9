"""HashRouter looks up the expert of each token in tables that a person can check."""

import hashlib

import pytest
import torch

from models.hash_keys import TokenContext
from models.router_hash import UNSET, HashRouter, num_keys
from tests.models.tiny import tiny_config


def make_router(table: list[list[int]], **fields) -> HashRouter:
    router = HashRouter(tiny_config(vocab_size=len(table), num_experts=3, **fields), 0)
    router.set_table(torch.tensor(table))
    return router


def context(current: list[int], previous: list[int] | None = None, position: list[int] | None = None) -> TokenContext:
    """The context of one sequence."""
    return TokenContext(*(torch.tensor([ids or [0] * len(current)]) for ids in (current, previous, position)))


def experts(router: HashRouter, *ids: list[int]) -> list[list[int]]:
    """The experts of all tokens, by hash."""
    return [routes.expert_N.tolist() for routes in router(context(*ids))]


def test_a_token_goes_to_the_expert_of_its_row():
    assert experts(make_router([[2], [0], [1]]), [1, 0, 2, 0]) == [[0, 2, 1, 2]]


def test_every_hash_has_its_column():
    assert experts(make_router([[2, 0], [0, 1]], num_hashes=2), [1, 0]) == [[0, 2], [1, 0]]


def test_in_a_rotation_the_position_chooses_the_column():
    router = make_router([[2, 0, 1], [0, 1, 2]], rotation_period=3)
    assert experts(router, [1, 0, 0, 1], [0] * 4, [4, 2, 3, 0]) == [[1, 1, 2, 0]]


def make_splitting_router(*, num_groups=2) -> HashRouter:
    """Token 1 goes by the previous token; after token 0 by position in group 0, after 2 in group 1."""
    config = tiny_config(vocab_size=3, num_experts=3, split_sizes=[[1, num_groups, 2]])
    router = HashRouter(config, 0)
    router.set_table(
        torch.tensor([[0], [0], [2]]),
        split_index=torch.tensor([-1, 0, -1]),
        split_table=torch.tensor([[-1, 0, -2, 1]]) if num_groups else torch.tensor([[0, 2, 1, 1]]),
        position_table=torch.tensor([[0, 1], [2, 0]])[:num_groups],
    )
    return router


def test_a_frequent_token_is_split_by_the_previous_token_and_others_are_not():
    assert experts(make_splitting_router(), [1, 1, 0, 2], [1, 3, 3, 1], [1] * 4) == [[0, 1, 0, 2]]


def test_a_frequent_bigram_is_split_by_position():
    assert experts(make_splitting_router(), [1] * 5, [0, 0, 0, 2, 2], [0, 1, 3, 2, 3]) == [[0, 1, 1, 2, 0]]


def test_without_frequent_bigrams_no_position_is_read():
    assert experts(make_splitting_router(num_groups=0), [1, 1, 2], [0, 2, 0], [5, 6, 7]) == [[0, 1, 2]]


def test_only_layers_with_frequent_tokens_have_their_tables():
    names = [[name for name, _ in router.named_buffers()] for router in (make_router([[0]]), make_splitting_router())]
    assert names == [["route_table"], ["route_table", "split_index", "split_table", "position_table"]]
    config = tiny_config(sparse_layers=[0, 2], split_sizes=[[0, 0, 0], [1, 1, 2]])
    assert [HashRouter(config, index).splits for index in range(2)] == [False, True]


def test_a_new_table_is_unset_and_refused():
    router = HashRouter(tiny_config(vocab_size=3), 0)
    assert router.route_table.tolist() == [[UNSET]] * 3 and router.route_table.dtype == torch.int32
    with pytest.raises(ValueError, match="the route table is not set .it holds -1."):
        router(context([0]))


@pytest.mark.parametrize("table", [[[0], [3]], [[-1], [2]]])
def test_an_expert_that_does_not_exist_is_refused(table):
    with pytest.raises(ValueError, match="names expert 3 but the layer has 3 experts|is not set"):
        make_router(table)


def test_a_table_that_changes_later_is_checked_again():
    router = make_router([[0], [1]])
    router.route_table[1] = 3
    with pytest.raises(ValueError, match="names expert 3"):
        router(context([0]))


def test_a_table_that_stays_the_same_is_read_once(monkeypatch):
    router, reads = make_router([[0], [1]]), []
    monkeypatch.setattr(torch.Tensor, "min", lambda tensor: reads.append(tensor))
    assert experts(router, [1, 0]) == [[1, 0]] and not reads


def test_a_table_of_inference_mode_has_no_version_and_is_read_all_the_same():
    with torch.inference_mode():
        assert experts(make_router([[0], [1]]), [1, 0]) == [[1, 0]]
        router = HashRouter(tiny_config(vocab_size=2, num_experts=3), 0)
        router.set_table(torch.tensor([[0], [1]]))
        assert experts(router, [1]) == [[1]]


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"route_table has shape \(2, 1\) but the model needs \(3, 1\)"):
        HashRouter(tiny_config(vocab_size=3), 0).set_table(torch.zeros(2, 1))


def test_new_tokens_go_to_the_least_used_experts_in_turn():
    router = make_router([[2], [0], [2], [0], [0]])
    router.resize(9)  # used 3, 0 and 2 times
    assert router.route_table.flatten().tolist() == [2, 0, 2, 0, 0, 1, 2, 0, 1]


def test_a_single_new_token_goes_to_the_least_used_expert():
    router = make_router([[2], [0]])
    router.resize(3)
    assert router.route_table.flatten().tolist() == [2, 0, 1]


def test_every_column_has_its_least_used_experts():
    router = make_router([[2, 0], [1, 1]], num_hashes=2)
    router.resize(4)
    assert router.route_table.tolist() == [[2, 0], [1, 1], [0, 2], [1, 0]]


def test_the_new_rows_of_an_unset_table_are_unset():
    router = HashRouter(tiny_config(vocab_size=2), 0)
    router.resize(4)
    assert router.route_table.tolist() == [[UNSET]] * 4


@pytest.mark.parametrize("size", [1, 2])
def test_a_smaller_vocabulary_cuts_the_table(size):
    router = make_router([[2], [0]])
    router.resize(size)
    assert router.route_table.tolist() == [[2], [0]][:size]


def test_new_tokens_are_not_split():
    router = make_splitting_router()
    router.resize(5)
    assert router.split_index.tolist() == [-1, 0, -1, -1, -1]
    router.resize(2)
    assert router.split_index.tolist() == [-1, 0]


def test_a_table_of_previous_tokens_keeps_its_size():
    router = HashRouter(tiny_config(vocab_size=3, hash_keys=["previous"]), 0)
    router.resize(7)
    assert len(router.route_table) == 4


def digest(shape: str, values: list[int]) -> str:
    data = b"".join(value.to_bytes(4, "little", signed=True) for value in values)
    return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + data).hexdigest()


def test_the_digest_is_that_of_the_shape_and_the_values():
    assert make_router([[2], [0], [1]]).layer_digest == digest("3,1", [2, 0, 1])


def test_the_digest_of_a_layer_that_splits_covers_all_tables():
    tables = [("3,1", [0, 0, 2]), ("3", [-1, 0, -1]), ("1,4", [-1, 0, -2, 1]), ("2,2", [0, 1, 2, 0])]
    joined = "".join(digest(*table) for table in tables)
    assert make_splitting_router().layer_digest == "sha256:" + hashlib.sha256(joined.encode()).hexdigest()


def test_a_key_has_as_many_rows_as_values():
    config = tiny_config(vocab_size=5, num_buckets=11, max_position_embeddings=7)
    sizes = {key: num_keys(key, config) for key in ("token", "previous", "bigram", "position", "next", "predicted")}
    assert sizes == {"token": 5, "previous": 6, "bigram": 11, "position": 7, "next": 5, "predicted": 5}
