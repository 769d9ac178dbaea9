"""Weights depend on the seed and on names alone: not on the number of ranks, not on which layers are sparse."""

import copy

import pytest
import torch

from models.configuration_hash_gpt import HashGPTConfig
from train.engine.model import build_model
from train.parallel import expert_parallel
from train.parallel.expert_parallel import assert_experts_are_tagged, stacked_expert_tensors, tag_experts


def network(**fields) -> HashGPTConfig:
    defaults = {
        "vocab_size": 32, "max_position_embeddings": 16, "hidden_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 2, "sparse_layers": [1], "num_experts": 4, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return HashGPTConfig(**{**defaults, **fields})


def tables(config: HashGPTConfig) -> torch.Tensor | None:
    num_hidden_layers = len(config.sparse_layers)
    return (
        (torch.arange(32) % config.num_experts).view(1, 32, 1).expand(num_hidden_layers, -1, -1)
        if num_hidden_layers
        else None
    )


def build(*, seed=0, ep_size=1, **fields):
    config = network(**fields)
    return build_model(config, route_tables=tables(config), ep_size=ep_size, seed=seed)


@pytest.fixture
def build_share(monkeypatch):
    """Build what one rank of an expert-parallel group holds, without any process group."""

    def build_rank(rank: int, *, ep_size: int, **fields):
        monkeypatch.setattr(expert_parallel.groups, "_create_expert_and_data_parallel", lambda size: None)
        monkeypatch.setattr(expert_parallel.groups, "_get_expert_parallel_group", lambda name: None)
        monkeypatch.setattr(expert_parallel.groups, "_get_expert_parallel_rank", lambda name: rank)
        return build(ep_size=ep_size, **fields)

    return build_rank


def weights(model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def experts(model, layer=1) -> dict[str, torch.Tensor]:
    return stacked_expert_tensors(model.transformer.h[layer].sparse_ffn.experts)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before():
    first = build(seed=3)
    torch.rand(7)
    second = build(seed=3)
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))


def test_another_seed_gives_other_weights():
    first, second = weights(build(seed=3)), weights(build(seed=4))
    equal = {name for name in first if torch.equal(first[name], second[name])}
    assert equal == {name for name in first if "bias" in name or ".ln_" in name}  # zeros and ones


def test_a_sparse_model_shares_every_other_weight_with_its_dense_baseline():
    dense, sparse = weights(build(sparse_layers=[])), weights(build(sparse_layers=[1]))
    shared = dense.keys() & sparse.keys()
    assert len(dense.keys() - shared) == 4  # the matrices and biases of block 1's feed-forward
    assert all(torch.equal(dense[name], sparse[name]) for name in shared)


@pytest.mark.parametrize("fields", [{}, {"placement": "insert", "num_sublayers": 3}], ids=["replaced", "inserted"])
@pytest.mark.parametrize("ep_size", [2, 4])
def test_the_ranks_of_a_group_hold_the_experts_of_one_process(build_share, ep_size, fields):
    whole = build(**fields)
    shares = [build_share(rank, ep_size=ep_size, **fields) for rank in range(ep_size)]
    for name, tensor in experts(whole).items():
        assert torch.equal(torch.cat([experts(share)[name] for share in shares]), tensor), name
    shared = {name for name in weights(whole) if ".experts." not in name}
    assert all(torch.equal(weights(share)[name], weights(whole)[name]) for share in shares for name in shared)


def test_an_inserted_layer_leaves_every_weight_of_the_dense_baseline():
    dense, sparse = weights(build(sparse_layers=[])), weights(build(placement="insert", num_sublayers=2))
    assert all(torch.equal(sparse[name], dense[name]) for name in dense)


def test_no_two_experts_are_equal():
    model = build(sparse_layers=[1, 2])
    for name in ("up_proj", "down_proj"):
        drawn = torch.cat([experts(model, layer)[name] for layer in (1, 2)]).flatten(1)
        assert len(drawn.unique(dim=0)) == 8


def test_weights_spread_as_in_gpt2():
    model = build(hidden_size=64)
    std, scaled = 0.02, 0.02 / 8**0.5  # 4 blocks * 2 residual branches
    for name, matrix in weights(model).items():
        if matrix.dim() > 1 and "bias" not in name:
            is_last_of_a_branch = "c_proj" in name or "down_proj" in name
            assert matrix.std().item() == pytest.approx(scaled if is_last_of_a_branch else std, rel=0.1), name


def test_biases_are_zero_and_norms_are_one():
    for name, tensor in weights(build()).items():
        if "bias" in name or ".ln_" in name:
            assert tensor.eq(0.0 if "bias" in name else 1.0).all(), name


def test_sinusoidal_positions_are_filled_after_the_meta_device():
    table = build(position_embedding="sinusoidal").transformer.wpe.table
    assert table[0, :16].eq(0).all()  # sin 0
    assert table[0, 16:].allclose(torch.tensor(0.02 * 2**0.5))  # cos 0


def test_the_built_model_computes_what_the_ordinary_constructor_would():
    from models.modeling_hash_gpt import HashGPTForCausalLM

    built = build().eval()
    ordinary = HashGPTForCausalLM(network()).eval()
    ordinary.load_state_dict(built.state_dict())
    ids = torch.arange(8).view(1, 8)
    assert torch.equal(built(ids).logits, ordinary(ids).logits)


def test_tables_are_set_and_their_digests_recorded():
    model = build(sparse_layers=[1, 3])
    assert model.transformer.h[3].mlp.router.route_table.flatten().tolist() == [i % 4 for i in range(32)]
    assert model.config.route_table_digests == [router.layer_digest for router in model.hash_routers]


def test_experts_that_lost_their_tags_are_named_and_can_be_tagged_again(build_share):
    model = build_share(1, ep_size=2)
    assert_experts_are_tagged(model)
    copied = copy.deepcopy(model)
    with pytest.raises(RuntimeError, match=r"h\.1\.mlp\.experts\.experts\.w1 lost its expert-parallel tags"):
        assert_experts_are_tagged(copied)
    tag_experts(copied)
    assert_experts_are_tagged(copied)


def test_a_rank_holds_only_its_share_of_the_experts(build_share):
    model = build_share(1, ep_size=2)
    assert model.transformer.h[1].mlp.experts.expert_ids == range(2, 4)
    assert experts(model)["up_proj"].shape == (2, 32, 128)
