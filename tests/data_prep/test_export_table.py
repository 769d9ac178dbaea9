"""A table survives export and import, and transformers' DeepSeek-V4 routes by the exported one."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file

from data_prep.counts.counts_file import Counts
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.export_table import export_table, main, resized
from data_prep.import_table import import_table
from data_prep.import_table import main as main_import
from data_prep.tables.apply_table import apply_table
from data_prep.tables.other_programs import FORMATS
from data_prep.tables.route_table_file import read_route_table, write_route_table
from tests.data_prep.tables.test_make_route_table import make

COUNTS = Counts(1000 // np.arange(1, 33), "sha256:t", "sha256:c")
TABLE = make(COUNTS, 8, num_tables=3, top_k=2)


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("format_name", "name", "dtype"),
    [
        ("deepseek_v4_hf", "model.layers.1.mlp.gate.tid2eid", np.int64),
        ("deepseek", "layers.1.ffn.gate.tid2eid", np.int64),
        ("megatron", "decoder.layers.1.mlp.router.tid2eid", np.int32),
        ("torchtitan", "layers.1.moe.router.tid2eid", np.int64),
    ],
)
def test_each_program_finds_its_names(format_name, name, dtype):
    tensors = export_table(TABLE, format_name)
    assert len(tensors) == 3 and tensors[name].dtype == dtype
    assert tensors[name].tolist() == TABLE.tables[1].tolist()


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_exported_table_comes_back(tmp_path, tokenizer_folder, format_name):
    write_route_table(tmp_path / "table", TABLE)
    model = tmp_path / "model.safetensors"
    assert run(tmp_path / "table", "--format", format_name, "--layers", 10, 2, 9, "--output", model) == 0
    arguments = [model, "--format", format_name, "--num_experts", 8, "--tokenizer", tokenizer_folder]
    assert main_import([str(argument) for argument in [*arguments, "--output", tmp_path / "back"]]) == 0
    back = read_route_table(tmp_path / "back")
    assert np.array_equal(back.tables, TABLE.tables[[1, 2, 0]])  # in the order of the layers 2, 9, 10
    assert (back.method, back.top_k, back.num_experts, back.num_tokens) == ("imported", 2, 8, 0)
    assert back.tokenizer_digest == tokenizer_digest(load_tokenizer(tokenizer_folder))


def test_padding_ids_go_to_the_experts_with_the_fewest():
    table = np.array([[0, 1], [0, 2]], dtype=np.int32)
    assert resized(table, 4, 5).tolist() == [[0, 1], [0, 2], [3, 1], [2, 3], [0, 1]]
    assert resized(table, 4, 1).tolist() == [[0, 1]]
    assert export_table(TABLE, "deepseek", resize=40)["layers.0.ffn.gate.tid2eid"].shape == (40, 2)


def small_deepseek():
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

    config = DeepseekV4Config(
        vocab_size=32, hidden_size=32, moe_intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, q_lora_rank=16, o_groups=1, o_lora_rank=16, n_routed_experts=8,
        num_experts_per_tok=2, mlp_layer_types=["hash_moe", "hash_moe", "moe"], index_n_heads=2, index_head_dim=16,
        index_topk=4, sliding_window=8, pad_token_id=None,
    )  # fmt: skip
    return DeepseekV4ForCausalLM(config)


def test_deepseek_v4_of_transformers_routes_as_predicted(tmp_path):
    table = make(COUNTS, 8, num_tables=2, top_k=2)
    write_route_table(tmp_path / "table", table)
    assert run(tmp_path / "table", "--format", "deepseek_v4_hf", "--output", tmp_path / "table.safetensors") == 0
    model = small_deepseek()
    missing, unexpected = model.load_state_dict(load_torch_file(tmp_path / "table.safetensors"), strict=False)
    assert not unexpected and not any("tid2eid" in name for name in missing)
    tokens = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))
    routed = {}
    for layer in (0, 1):
        gate = model.model.layers[layer].mlp.gate
        gate.register_forward_hook(lambda module, inputs, output, layer=layer: routed.update({layer: output[2]}))
    model(tokens)
    for layer in (0, 1):
        assert routed[layer].reshape(2, 12, 2).tolist() == apply_table(table, layer, tokens.numpy()).tolist()


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"num_hashes": 2}, "key token, 2 hashes"), ({"hash_key": "next"}, "key next, 1 hashes")],
)
def test_tables_that_other_programs_cannot_look_up_are_refused(options, kind):
    with pytest.raises(ValueError, match=f"tables of key token with 1 hash and no rotation, but this one has {kind}"):
        export_table(make(COUNTS, 8, **options), "megatron")


@pytest.mark.parametrize("layers", [[0, 1], [0, 1, 1]])
def test_every_table_needs_its_layer(layers):
    with pytest.raises(ValueError, match=r"--layers \[0, 1.* must name 3 different layers"):
        export_table(TABLE, "deepseek", layers=layers)


def test_the_files_metadata_says_which_table_it_is(tmp_path):
    from safetensors import safe_open

    write_route_table(tmp_path / "table", TABLE)
    run(tmp_path / "table", "--format", "megatron", "--output", tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert file.metadata()["route_table_digest"] == TABLE.digest
    assert len(load_file(tmp_path / "model.safetensors")) == 3


def imported(tmp_path, tensors, *, num_experts=8):
    save_file(tensors, tmp_path / "model.safetensors")
    return import_table(tmp_path, "deepseek", num_experts=num_experts, tokenizer_digest="sha256:t")


def test_whole_floats_are_read(tmp_path):
    table = imported(tmp_path, {"layers.0.ffn.gate.tid2eid": np.array([[0, 1], [2, 3]], dtype=np.float32)})
    assert table.tables.tolist() == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": [[0]]}, "has no tensor layers.{}.ffn.gate.tid2eid, the name of deepseek"),
        ({"layers.0.ffn.gate.tid2eid": [[0, 8]]}, "routes to experts 0..8, but only 0..7 exist; give"),
        ({"layers.0.ffn.gate.tid2eid": [[1, 1]]}, r"gives key 0 the experts \[1, 1\], but 2 different ones"),
        ({"layers.0.ffn.gate.tid2eid": [[0.5, 1]]}, "float64 .*whole numbers"),
        ({"layers.0.ffn.gate.tid2eid": [[0]], "layers.1.ffn.gate.tid2eid": [[0, 1]]}, r"shapes \[\(1, 1\), \(1, 2\)\]"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, tensors, message):
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, {name: np.array(values) for name, values in tensors.items()})
