"""Every hash function of the paper keeps the same promises, tested on each in the same way."""

import pytest
import torch

from models.choices import HASH_KEYS
from models.hash_keys import TokenContext, bigram_buckets, hash_keys, previous_tokens
from models.modeling_hash_gpt import HashGPTForCausalLM
from models.router_hash import num_keys
from tests.models.hashes import HASHES, make_tables
from tests.models.tiny import VOCAB, tiny_config, token_ids


def make_model(name: str, *, seed=0) -> HashGPTForCausalLM:
    torch.manual_seed(seed)
    config = tiny_config(sparse_layers=[0, 2], num_experts=4, num_buckets=11, **HASHES[name])
    model = HashGPTForCausalLM(config).eval()
    model.set_route_tables([make_tables(config, index) for index in range(2)])
    for parameter in model.parameters():  # zero-initialised matrices would hide what happens before them
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def known(name: str, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The ids that a training loop would pass besides input_ids."""
    if name == "next":
        return {"next_ids": ids.roll(-1, dims=1)}
    return {"predicted_ids": (ids * 7 + 3) % VOCAB} if name == "predicted" else {}


@pytest.mark.parametrize("name", HASHES)
def test_experts_are_in_range_and_the_same_every_time(name):
    model, ids = make_model(name), token_ids(3, 9)
    plans = model.transformer.plan(ids, **known(name, ids))
    again = model.transformer.plan(ids, **known(name, ids))
    for layer in (0, 2):
        assert len(plans[layer]) == model.config.num_hashes
        for plan, second in zip(plans[layer], again[layer], strict=True):
            assert (
                len(plan.tokens_per_expert) == 4
                and sum(plan.tokens_per_expert) == 27
                and plan.tokens_per_expert[3] == 0
            )
            assert torch.equal(plan.order_N, second.order_N)


@pytest.mark.parametrize("name", HASHES)
def test_layers_report_the_tokens_of_each_expert_over_all_hashes(name):
    model, ids = make_model(name), token_ids(3, 9)
    plans = model.transformer.plan(ids, **known(name, ids))
    records = model(ids, plans=plans).routing
    assert list(records) == [0, 2]
    for layer, record in records.items():
        expected = torch.tensor([plan.tokens_per_expert for plan in plans[layer]]).sum(0)
        assert (record.num_tokens, record.tokens_per_expert, record.routing) == (27, expected.tolist(), None)


@pytest.mark.parametrize("name", HASHES)
def test_gradients_reach_exactly_the_experts_that_were_routed_to(name):
    model, ids = make_model(name), token_ids(1, 5)
    plans = model.transformer.plan(ids, **known(name, ids))
    model(ids, plans=plans).logits.square().sum().backward()
    for layer, sparse_ffn in model.transformer.sparse_ffns.items():
        used = torch.tensor([plan.tokens_per_expert for plan in plans[layer]]).sum(0) > 0
        for tensor_name, parameter in sparse_ffn.experts.named_parameters():
            reached = parameter.grad.flatten(1).abs().amax(1) > 0
            assert torch.equal(reached, used), (layer, tensor_name)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", [name for name in HASHES if name != "next"])
def test_cached_generation_equals_uncached_with_left_padding(name, beams):
    model = make_model(name)
    if name == "predicted":
        model.set_predictor(make_model("token", seed=1))
    ids = token_ids(2, 6)
    ids[0, :3] = 0
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize("name", HASHES)
def test_a_saved_model_routes_the_same(name, tmp_path):
    model, ids = make_model(name), token_ids()
    model.save_pretrained(tmp_path)
    loaded = HashGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids, **known(name, ids)).logits, model(ids, **known(name, ids)).logits)


@pytest.mark.parametrize("name", [name for name in HASHES if name != "next"])
def test_routes_do_not_look_at_later_tokens(name):
    model, ids = make_model(name), token_ids(1, 8)
    changed = ids.clone()
    changed[0, 6:] = (ids[0, 6:] + 1) % VOCAB
    before = model(ids, **known(name, ids)).logits[0, :6]
    torch.testing.assert_close(model(changed, **known(name, changed)).logits[0, :6], before)


@pytest.mark.parametrize("hashes", [1, 2, 4, 8])
def test_multi_hash_equals_a_naive_loop_over_tokens(hashes):
    name = f"MultiHash {hashes}" if hashes > 1 else "token"
    layer = make_model(name).double().transformer.h[0].mlp
    experts, table = layer.experts, layer.router.route_table
    ids, hidden = token_ids(2, 5), torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)

    def naive(row, token):
        v = []
        for m, k in enumerate(table[token].tolist()):
            part = slice(m * 32 // hashes, (m + 1) * 32 // hashes)
            v.append(row @ experts.up_proj[k][:, part] + experts.up_proj_bias[k][part])
        v, out = experts.act(torch.cat(v)), []
        for m, k in enumerate(table[token].tolist()):
            part = slice(m * 8 // hashes, (m + 1) * 8 // hashes)
            out.append(v @ experts.down_proj[k][:, part] + experts.down_proj_bias[k][part])
        return torch.cat(out)

    expected = torch.stack([naive(row, token) for row, token in zip(hidden.flatten(0, 1), ids.flatten(), strict=True)])
    position = torch.arange(5).expand_as(ids)
    found = layer(hidden, layer.plan(TokenContext(ids, ids, position)))[0].flatten(0, 1)
    torch.testing.assert_close(found, expected)
    weights = [hidden, *experts.parameters()]
    for fast, slow in zip(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(fast, slow)


def test_in_a_rotation_the_position_chooses_the_column():
    layer, ids = make_model("rotation").transformer.h[0].mlp, token_ids(1, 9)
    position = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5, 6]])  # of a text with two tokens of padding
    [routes] = layer.router(TokenContext(ids, ids, position))
    table = layer.router.route_table
    expected = [int(table[k, p % 4]) for k, p in zip(ids[0].tolist(), position[0].tolist(), strict=True)]
    assert routes.expert_N.tolist() == expected


@pytest.mark.parametrize("fields", [{"rotation_period": 0}, {"rotation_period": 2, "num_hashes": 4}])
def test_a_rotation_of_several_hashes_is_refused(fields):
    with pytest.raises(
        ValueError, match=f"rotation_period={fields['rotation_period']} with num_hashes={fields.get('num_hashes', 1)}"
    ):
        tiny_config(**fields)


def test_multi_hash_has_the_parameters_of_one_hash():
    counts = {make_model(name).num_parameters() for name in ("token", "MultiHash 2", "MultiHash 8")}
    assert len(counts) == 1


def test_an_inserted_layer_equals_a_naive_loop_over_tokens():
    layer = make_model("inserted, 3 sublayers").double().transformer.h[0].sparse
    experts, ids = layer.experts, token_ids(1, 4)
    hidden = torch.randn(1, 4, 8, dtype=torch.float64)
    rows = []
    for row, token in zip(hidden[0], ids[0].tolist(), strict=True):
        e = int(layer.router.route_table[token, 0])
        for s in range(3):
            normed = torch.nn.functional.layer_norm(row, (8,), experts.norm_weight[e, s], experts.norm_bias[e, s])
            up = experts.act(normed @ experts.up_proj[e, s] + experts.up_proj_bias[e, s])
            row = row + up @ experts.down_proj[e, s] + experts.down_proj_bias[e, s]
        rows.append(row)
    found, _ = layer(hidden, layer.plan(TokenContext(ids, ids, ids)))
    torch.testing.assert_close(found[0], torch.stack(rows), atol=1e-5, rtol=1e-5)


def test_a_new_inserted_layer_is_the_identity():
    config = tiny_config(placement="insert", num_sublayers=3)
    layer = HashGPTForCausalLM(config).transformer.h[1].sparse
    layer.router.set_table(torch.arange(VOCAB).unsqueeze(1) % 3)
    ids, hidden = token_ids(), torch.randn(2, 7, 8)
    assert torch.equal(layer(hidden, layer.plan(TokenContext(ids, ids, ids)))[0], hidden)


def test_keys_of_a_short_text_checked_by_hand():
    ids = torch.tensor([[9, 9, 4, 7]])
    mask = torch.tensor([[0, 1, 1, 1]])
    context = TokenContext(ids, previous_tokens(ids, mask, none=23), torch.tensor([[0, 0, 1, 2]]))
    assert hash_keys("token", context, none=23, num_buckets=5).tolist() == [[9, 9, 4, 7]]
    assert hash_keys("previous", context, none=23, num_buckets=5).tolist() == [[23, 23, 9, 4]]
    assert hash_keys("position", context, none=23, num_buckets=5).tolist() == [[0, 0, 1, 2]]


def test_bigram_buckets_never_change():
    previous, current = torch.tensor([0, 5, 50256, 50257]), torch.tensor([0, 7, 11, 50256])
    assert bigram_buckets(previous, current, none=50257, num_buckets=65536).tolist() == [0, 52268, 43267, 823]


def test_the_oracle_refuses_to_generate_and_says_why():
    with pytest.raises(ValueError, match="route by the token to be predicted.*cannot generate"):
        make_model("next").generate(token_ids(), max_new_tokens=2)


def test_the_oracle_takes_the_next_token_from_the_labels():
    model, ids = make_model("next"), token_ids()
    by_labels = model(ids, labels=ids).logits[:, :-1]
    torch.testing.assert_close(by_labels, model(ids, next_ids=ids.roll(-1, dims=1)).logits[:, :-1])


def test_predicted_futures_need_a_prediction():
    with pytest.raises(ValueError, match="pass predicted_ids.*set_predictor"):
        make_model("predicted")(token_ids())


def test_a_cache_without_the_previous_token_is_refused():
    model, ids = make_model("previous"), token_ids()
    cache = model(ids[:, :4], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="4 tokens are in the cache.*previous_ids"):
        model(ids[:, 4:5], past_key_values=cache)


@pytest.mark.parametrize("name", HASHES)
def test_tokens_added_to_the_vocabulary_are_routed_too_and_saved(name, tmp_path):
    model = make_model(name)
    model.resize_token_embeddings(VOCAB + 5)
    ids = torch.tensor([[VOCAB, VOCAB + 4, 1, VOCAB + 4, 2]])
    logits = model(ids, **known(name, ids)).logits
    assert logits.shape == (1, 5, VOCAB + 5)
    model.save_pretrained(tmp_path)
    loaded = HashGPTForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(ids, **known(name, ids)).logits, logits)


@pytest.mark.parametrize("name", HASH_KEYS)
def test_keys_are_rows_of_the_table_for_tokens_of_a_larger_vocabulary_too(name):
    model, ids = make_model(name), torch.tensor([[VOCAB + 4, VOCAB, 1, 0, VOCAB + 4]])
    model.resize_token_embeddings(VOCAB + 5)
    context = model.transformer.token_context(ids, **known(name, ids))
    keys = hash_keys(name, context, none=model.config.hash_vocab_size, num_buckets=model.config.num_buckets)
    assert 0 <= keys.min() and keys.max() < num_keys(name, model.config)
