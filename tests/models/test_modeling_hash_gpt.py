"""The model as users of transformers see it: logits, generation, tables, saving and loading."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.models.tiny import VOCAB, random_tables, tiny_config, tiny_model, token_ids

SHAPES = [{}, {"position_embedding": "sinusoidal"}, {"sparse_layers": [0, 2], "num_experts": 5}, {"sparse_layers": []}]


def test_without_sparse_layers_it_is_gpt2():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=32, n_embd=8, n_layer=3, n_head=2)).eval()
    model = tiny_model(sparse_layers=[], seed=5)
    model.load_state_dict(gpt2.state_dict())
    ids, mask = token_ids(), torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    torch.testing.assert_close(model(ids, labels=ids).logits, gpt2(ids, labels=ids).logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(ids, labels=ids).loss, gpt2(ids, labels=ids).loss)
    torch.testing.assert_close(model(ids, attention_mask=mask).logits, gpt2(ids, attention_mask=mask).logits)


def test_gpt2_weights_on_disk_open_as_the_dense_baseline(tmp_path):
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=32, n_embd=8, n_layer=3, n_head=2)).eval()
    gpt2.save_pretrained(tmp_path)
    model = HashGPTForCausalLM.from_pretrained(tmp_path, config=tiny_config(sparse_layers=[])).eval()
    torch.testing.assert_close(model(token_ids()).logits, gpt2(token_ids()).logits)


@pytest.mark.parametrize("shape", SHAPES)
def test_generation_with_cache_equals_without(shape):
    model, ids = tiny_model(**shape), token_ids()
    ids[0, :3] = 0  # left padding
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for beams in (1, 3):
        options = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "num_beams": beams}
        cached = model.generate(ids, **options, use_cache=True, pad_token_id=0)
        assert torch.equal(cached, model.generate(ids, **options, use_cache=False, pad_token_id=0))


def test_left_padding_does_not_change_what_is_generated():
    model, ids = tiny_model(), token_ids(batch=1)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(padded.shape[1]) >= 4).long().unsqueeze(0)
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0)
    beside = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(alone, beside[:, 4:])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_saved_model_opens_with_auto_classes(shape, tmp_path):
    model = tiny_model(**shape)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert torch.equal(loaded(token_ids()).logits, model(token_ids()).logits)
    assert loaded.config.route_table_digests == model.config.route_table_digests


def test_a_saved_model_opens_where_neither_deepspeed_nor_this_repository_is(tmp_path):
    model, ids = tiny_model(), token_ids(batch=1)
    model.save_pretrained(tmp_path / "saved")
    code = (
        "import sys, torch; sys.modules['deepspeed'] = None; sys.modules['models'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'saved')!r}, trust_remote_code=True)\n"
        f"ids = torch.tensor({ids.tolist()})\n"
        "print(model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0).tolist())\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    expected = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert result.stdout.strip().splitlines()[-1] == str(expected.tolist())


def test_the_configuration_on_disk_names_sizes_as_other_models_do(tmp_path):
    config = tiny_config(intermediate_size=24)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    names = ["max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    assert [saved[name] for name in names] == [32, 8, 3, 2, 24]
    assert not [name for name in saved if name.startswith("n_")]
    assert HashGPTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_feed_forward_is_four_times_as_wide_as_hidden_states_by_default():
    assert tiny_config().intermediate_size == 32


def test_an_unset_table_is_an_error():
    model = HashGPTForCausalLM(tiny_config())
    with pytest.raises(ValueError, match="route table is not set.*build_table"):
        model(token_ids())


def test_a_checkpoint_without_its_table_is_an_error_not_expert_0(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["transformer.h.1.mlp.router.route_table"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="route table is not set"):
        HashGPTForCausalLM.from_pretrained(tmp_path)(token_ids())


def test_a_table_of_another_shape_number_or_range_is_refused():
    model = HashGPTForCausalLM(tiny_config())
    with pytest.raises(ValueError, match=r"shape \(22, 1\) but the model needs \(23, 1\)"):
        model.set_route_tables(torch.zeros(1, VOCAB - 1, 1))
    with pytest.raises(ValueError, match="2 route tables for 1 sparse layers"):
        model.set_route_tables(torch.zeros(2, VOCAB, 1))
    with pytest.raises(ValueError, match="names expert 7 but the layer has 3 experts"):
        model.set_route_tables(torch.full((1, VOCAB, 1), 7))


def test_a_table_changed_in_place_is_checked_again():
    model = tiny_model()
    model(token_ids())
    model.hash_routers[0].route_table.fill_(-1)
    with pytest.raises(ValueError, match="not set"):
        model(token_ids())


def test_embeddings_without_ids_are_refused_by_hash_layers_only():
    embeddings = torch.zeros(1, 3, 8)
    with pytest.raises(ValueError, match="route by token ids.*input_ids"):
        tiny_model()(inputs_embeds=embeddings)
    assert tiny_model(sparse_layers=[])(inputs_embeds=embeddings).logits.shape == (1, 3, VOCAB)


def test_resizing_extends_the_table_with_the_least_used_experts():
    model = HashGPTForCausalLM(tiny_config(vocab_size=4)).eval()
    model.set_route_tables(torch.tensor([0, 0, 2, 2]).view(1, 4, 1))
    before = model.config.route_table_digests
    model.resize_token_embeddings(8)
    assert model.hash_routers[0].route_table.flatten().tolist() == [0, 0, 2, 2, 1, 0, 2, 1]
    assert model(torch.tensor([[7, 6, 5]])).logits.shape == (1, 3, 8)
    assert model.config.route_table_digests != before
    model.resize_token_embeddings(3)
    assert model.hash_routers[0].route_table.flatten().tolist() == [0, 0, 2]


def test_each_sparse_layer_has_a_table_of_its_own():
    model = tiny_model(sparse_layers=[0, 2])
    tables = random_tables(model.config)
    assert not torch.equal(tables[0], tables[1])
    for router, table in zip(model.hash_routers, tables, strict=True):
        assert torch.equal(router.route_table, table.int())
    assert len(set(model.config.route_table_digests)) == 2


def test_activation_checkpointing_leaves_gradients_as_they_are():
    ids, gradients = token_ids(), []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_sinusoidal_positions_have_no_parameters_and_the_size_of_token_embeddings():
    model = tiny_model(position_embedding="sinusoidal", hidden_size=64)
    assert not any("wpe" in name for name in model.state_dict())
    rms = model.transformer.wpe.table.square().mean().sqrt().item()
    assert rms == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sparse_layers": [3]}, r"\[3\] do not exist: num_hidden_layers=3"),
        ({"sparse_layers": [1, 1]}, r"\[1, 1\] names a layer twice"),
        ({"position_embedding": "rotary"}, "'rotary' is not one of"),
        ({"num_experts": 0}, "num_experts=0 must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        HashGPTConfig(**{"num_hidden_layers": 3, "sparse_layers": [1], **fields})


@pytest.mark.filterwarnings("default")  # torch.compile warns of what it meets itself while it traces
def test_the_dense_part_compiles():
    """Hash layers route by data, which ends a compiler's graph; everything between them can be compiled."""
    model, ids = tiny_model(), token_ids()
    expected = model(ids, labels=ids).loss
    expected_grads = torch.autograd.grad(expected, list(model.parameters()))
    # The default code generator needs a C++ compiler; tracing and autograd are the parts that could break.
    found = torch.compile(model, backend="aot_eager")(ids, labels=ids, plans=model.transformer.plan(ids)).loss
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, list(model.parameters())), expected_grads, strict=True):
        torch.testing.assert_close(a, b)
