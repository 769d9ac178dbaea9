"""Every learned router keeps the same promises, tested on each in the same way."""

import json
import os
import subprocess
import sys

import pytest
import torch

from models.modeling_hash_gpt import HashGPTForCausalLM
from models.routes import add_auxiliary_losses
from tests.models.routers import CAUSAL, NUM_EXPERTS, PLAIN, ROUTERS
from tests.models.tiny import VOCAB, tiny_config, token_ids

EVERY = pytest.mark.parametrize("name", ROUTERS)


def make_model(name: str, *, seed=0) -> HashGPTForCausalLM:
    """In evaluation mode, with parameters large enough for every effect to show."""
    torch.manual_seed(seed)
    config = tiny_config(sparse_layers=[0, 2], num_experts=NUM_EXPERTS, **ROUTERS[name])
    model = HashGPTForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def routings(model, ids: torch.Tensor, *, seed=0) -> list:
    """The Routing of each sparse layer for the ids."""
    torch.manual_seed(seed)
    return [record.routing for record in model(ids, use_cache=False).routing.values()]


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_pairs_are_of_tokens_and_experts_that_exist_and_none_comes_twice(name, training):
    for routing in routings(make_model(name).train(training), token_ids(3, 9)):
        routes = routing.routes
        token_N = torch.arange(27) if routes.token_N is None else routes.token_N
        assert len(token_N) == len(routes.expert_N) == len(routes.weight_N)
        assert 0 <= token_N.min() and token_N.max() < 27
        assert 0 <= routes.expert_N.min() and routes.expert_N.max() < NUM_EXPERTS
        assert 0 <= routes.weight_N.min() and routes.weight_N.max() <= 1 and routes.weight_N.dtype == torch.float32
        assert len(set(zip(token_N.tolist(), routes.expert_N.tolist(), strict=True))) == len(token_N)
        assert routing.num_dropped == 27 - len(token_N.unique())


@EVERY
def test_gradients_reach_the_gate_and_the_experts(name):
    model, ids = make_model(name).train(), token_ids(3, 9)
    model(ids, labels=ids, use_cache=False).loss.backward()  # without auxiliary losses, which would reach the gate too
    for layer in model.transformer.sparse_ffns.values():
        for parameter_name, parameter in layer.named_parameters():
            assert parameter.grad.abs().max() > 0, parameter_name


@EVERY
def test_evaluation_draws_nothing(name):
    model, ids = make_model(name), token_ids()
    torch.manual_seed(1)
    first = model(ids).logits
    torch.manual_seed(2)
    assert torch.equal(model(ids).logits, first)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_a_naive_loop_over_its_pairs(name, training):
    model, ids = make_model(name).double().train(training), token_ids()
    layer, hidden = model.transformer.h[0].sparse_ffn, torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    found, record = layer(hidden, [], ids)
    found, routes, tokens = found.flatten(0, 1), record.routing.routes, hidden.flatten(0, 1)
    token_N = range(14) if routes.token_N is None else routes.token_N.tolist()
    expected = list(tokens if layer.is_inserted else torch.zeros_like(tokens))
    for token, expert, weight in zip(token_N, routes.expert_N.tolist(), routes.weight_N, strict=True):
        output = one_expert(layer.experts, tokens[token], expert)
        expected[token] = expected[token] + weight * (output - tokens[token] if layer.is_inserted else output)
    torch.testing.assert_close(found, torch.stack(expected))
    weights, grad = [hidden, *layer.experts.parameters()], torch.randn_like(found)
    fast = torch.autograd.grad(found, weights, grad, retain_graph=True)
    slow = torch.autograd.grad(torch.stack(expected), weights, grad)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b)


def one_expert(experts, row, e):
    weights = {name: parameter[e] for name, parameter in experts.named_parameters()}
    if "norm_weight" not in weights:
        up = experts.act(row @ weights["up_proj"] + weights["up_proj_bias"])
        return up @ weights["down_proj"] + weights["down_proj_bias"]
    for s in range(len(weights["up_proj"])):
        of = {name: tensor[s] for name, tensor in weights.items()}
        normed = torch.nn.functional.layer_norm(row, (8,), of["norm_weight"], of["norm_bias"])
        up = experts.act(normed @ of["up_proj"] + of["up_proj_bias"])
        row = row + up @ of["down_proj"] + of["down_proj_bias"]
    return row


@EVERY
def test_activation_checkpointing_repeats_the_routes_and_keeps_the_auxiliary_gradients(name):
    ids, gradients = token_ids(), []
    for checkpointing in (False, True):
        model = make_model(name).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        outputs = model(ids, labels=ids, use_cache=False)
        add_auxiliary_losses(outputs.loss, outputs.routing).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"use_reentrant": True}, "use_reentrant=True would lose.*'switch'"),
        ({"determinism_check": "none"}, "use_reentrant=None would lose"),
        ({"use_reentrant": False, "preserve_rng_state": False}, "preserve_rng_state=False would let router='switch'"),
    ],
)
def test_checkpointing_that_loses_auxiliary_gradients_or_redraws_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_model("switch").activation_checkpointing_enable(options)


def test_a_base_layer_routes_shuffled_tokens_in_training_alone():
    layer, shuffled = make_model("base").transformer.h[0].sparse, []

    def reverse(hidden_TD):  # stands for the other ranks
        shuffled.append(len(hidden_TD))
        return hidden_TD.flip(0), lambda outputs_TD: outputs_TD.flip(0)

    layer.shuffle = reverse
    hidden = torch.randn(1, 8, 8)
    outputs, _ = layer.train()(hidden, [])
    layer.shuffle = None
    torch.testing.assert_close(outputs, layer(hidden.flip(1), [])[0].flip(1))
    layer.shuffle = reverse
    layer.eval()(hidden, [])
    assert shuffled == [8]


@pytest.mark.parametrize("coefficients", [{"router_aux_loss_coef": 0.5}, {"router_z_loss_coef": 0.5}])
def test_auxiliary_losses_of_all_layers_are_added_to_the_loss(coefficients):
    model, ids = make_model("switch"), token_ids()
    for layer in model.transformer.sparse_ffns.values():
        layer.router.router_aux_loss_coef = coefficients.get("router_aux_loss_coef", 0.0)
        layer.router.router_z_loss_coef = coefficients.get("router_z_loss_coef", 0.0)
    outputs = model(ids, labels=ids)
    added = add_auxiliary_losses(outputs.loss, outputs.routing) - outputs.loss
    expected = sum(record.routing.auxiliary_loss.item() for record in outputs.routing.values())
    assert added.item() == pytest.approx(expected, rel=1e-4)
    assert added > 0.1


@EVERY
def test_routers_score_in_float32_in_a_model_of_bfloat16(name):
    model, ids = make_model(name).to(torch.bfloat16).train(), token_ids()
    assert all(routing.routes.weight_N.dtype == torch.float32 for routing in routings(model, ids))
    assert model(ids, labels=ids, use_cache=False).logits.dtype == torch.bfloat16


@EVERY
def test_a_saved_model_routes_the_same(name, tmp_path):
    model, ids = make_model(name), token_ids()
    model.save_pretrained(tmp_path)
    assert torch.equal(HashGPTForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("name", [name for name in PLAIN if name in CAUSAL])
def test_cached_generation_equals_uncached_with_left_padding(name):
    model, ids = make_model(name), token_ids(2, 6)
    ids[0, :3] = 0
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "num_beams": 3, "pad_token_id": 0}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize("name", CAUSAL)
def test_in_evaluation_routes_do_not_look_at_later_tokens(name):
    model, ids = make_model(name), token_ids(1, 8)
    changed = ids.clone()
    changed[0, 6:] = (ids[0, 6:] + 1) % VOCAB
    torch.testing.assert_close(model(changed).logits[0, :6], model(ids).logits[0, :6])


def test_expert_choice_looks_at_later_tokens_and_refuses_to_generate():
    model, ids = make_model("expert_choice"), token_ids(1, 8)
    changed = ids.clone()
    changed[0, 6:] = (ids[0, 6:] + 1) % VOCAB
    assert not torch.allclose(model(changed).logits[0, :6], model(ids).logits[0, :6])
    with pytest.raises(ValueError, match="not comparable.*cannot generate"):
        model.generate(ids, max_new_tokens=2)


def test_saved_models_open_where_neither_deepspeed_nor_this_repository_is(tmp_path):
    ids, expected = token_ids(batch=1), {}
    for name in PLAIN:
        model = make_model(name)
        model.save_pretrained(tmp_path / name)
        expected[name] = model(ids).logits.argmax(-1).tolist()
    code = (
        "import json, sys, torch; sys.modules['deepspeed'] = None; sys.modules['models'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        f"ids, found = torch.tensor({ids.tolist()}), {{}}\n"
        f"for name in {PLAIN!r}:\n"
        f"    model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r} + '/' + name, trust_remote_code=True)\n"
        "    found[name] = model(ids).logits.argmax(-1).tolist()\n"
        "print(json.dumps(found))\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.strip().splitlines()[-1]) == expected


def test_embeddings_without_ids_are_refused_if_the_router_reads_ids():
    embeddings = torch.zeros(1, 3, 8)
    with pytest.raises(ValueError, match="token_switch route by token ids"):
        make_model("token_switch")(inputs_embeds=embeddings)
    assert make_model("switch")(inputs_embeds=embeddings).logits.shape == (1, 3, VOCAB)


def test_token_switch_routes_by_the_token_alone_and_learns_vectors_of_new_tokens():
    model = make_model("token_switch")
    first, second = (routings(model, ids)[1].routes for ids in (torch.tensor([[5, 1, 1]]), torch.tensor([[7, 7, 1]])))
    assert first.expert_N[2] == second.expert_N[2] and first.weight_N[2] == second.weight_N[2]
    model.resize_token_embeddings(VOCAB + 5)
    assert model(torch.tensor([[VOCAB + 4]])).logits.shape == (1, 1, VOCAB + 5)


def test_a_learned_router_takes_no_route_tables():
    with pytest.raises(ValueError, match="router='gshard' learns its routes"):
        make_model("gshard").set_route_tables(torch.zeros(2, VOCAB, 1))


@pytest.mark.parametrize("name", ["base", "switch inserted, full experts"])
def test_a_new_inserted_layer_is_the_identity_and_passes_dropped_tokens(name):
    config = tiny_config(num_experts=NUM_EXPERTS, **ROUTERS[name])
    layer = HashGPTForCausalLM(config).train().transformer.h[1].sparse
    hidden = torch.randn(2, 7, 8)
    assert torch.equal(layer(hidden, [])[0], hidden)


def test_new_centroids_of_base_layers_are_orthogonal():
    config = tiny_config(num_experts=4, **ROUTERS["base"])
    weight = HashGPTForCausalLM(config).transformer.h[1].sparse.router.gate.weight
    torch.testing.assert_close(weight @ weight.T, 0.01 * torch.eye(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"router": "swich"}, "router='swich' is not one of hash, switch"),
        ({"router": "base", "capacity_factor": 1.0}, "capacity_factor=1.0 with router='base', which ignores it"),
        ({"router_jitter_noise": 0.1}, "router_jitter_noise=0.1 with router='hash'.*switch, token_switch"),
        ({"router": "switch", "capacity_factor": 0.0}, "capacity_factor=0.0 must be above 0"),
        ({"router": "switch", "router_aux_loss_coef": -1.0}, "router_aux_loss_coef=-1.0 must be finite and at least 0"),
        ({"router": "switch", "num_hashes": 2}, "num_hashes=2 with router='switch'"),
        ({"router": "expert_choice", "expert_choice_cap": 1}, "expert_choice_cap=1 .* capacity_factor=2"),
        ({"router": "switch", "rotation_period": 2}, "rotation_period=2 with router='switch'"),
        ({"router": "switch", "split_sizes": [[1, 1, 1]]}, "split_sizes=.* with router='switch'"),
        (
            {"router": "expert_choice", "num_experts": 1, "sparse_layers": [0]},
            "=2 experts per token exceed num_experts=1",
        ),
        ({"router": "gshard", "num_experts": 1}, "num_experts=1 with router='gshard'"),
    ],
)
def test_options_that_a_router_does_not_have_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)
