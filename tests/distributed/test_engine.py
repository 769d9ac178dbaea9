"""The engine on two ranks: exports gather every expert, and DeepSpeed's silent failures are refused."""

import pytest
import torch

from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.distributed.engine_checks import bf16_norms_on_ranks, errors_on_ranks, export_on_ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.training import (
    local_parameters,
    plain_gradient_norm,
    run_config,
    train_on_ranks,
    train_plainly,
)

pytestmark = pytest.mark.distributed


def test_an_export_holds_every_expert_whatever_the_zero_stage(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    configs = [{"ep_size": ep, "zero_stage": stage} for ep, stage in ((2, 0), (2, 1), (2, 3), (1, 3))]
    configs += [{"routing": "token_switch", "ep_size": 2, "zero_stage": stage} for stage in (1, 3)]
    results = run_ranks(export_on_ranks, 2, configs=configs, folder=str(tmp_path))
    for index, config in enumerate(configs):
        exported = local_parameters(HashGPTForCausalLM.from_pretrained(tmp_path / f"{index}/checkpoints/step_00000001"))
        trained = {name: tensor for rank in results for name, tensor in rank[index].items()}
        assert set(exported) == set(trained), config
        assert all(torch.equal(exported[name], trained[name]) for name in exported), config


def test_silent_failures_of_deepspeed_are_refused():
    for errors in run_ranks(errors_on_ranks, 2):
        assert "rank 0's experts only" in errors["save_16bit_model"]
        assert "lost its expert-parallel tags" in errors["deepcopy"]
        assert "lost its expert-parallel tags" in errors["assign"]


def test_bf16_with_two_micro_batches_follows_fp32():
    configs = [{"ep_size": 2, "zero_stage": stage, "precision": "bf16", "lr": 0.1} for stage in (1, 2)]
    results = run_ranks(train_on_ranks, 2, configs=configs)
    expected, start = train_plainly(run_config(lr=0.1)), train_plainly(run_config(lr=1e-30))
    for index in range(len(configs)):
        for rank in results:
            for name, tensor in rank[index].items():
                moved = (expected[name] - start[name]).abs().max()
                # bf16 keeps 8 bits of the weights: half a unit in the last place of the largest is 2 ** -9 of it
                assert (tensor - expected[name]).abs().max() <= 0.1 * moved + 2**-8 * expected[name].abs().max(), name


def test_the_bf16_norm_is_that_of_all_or_of_the_shared_parameters():
    cases = [(norm, ep, stage) for norm in ("all", "shared") for ep in (1, 2) for stage in (1, 2)]
    configs = [
        {"precision": "bf16", "max_grad_norm": 0.1, "grad_norm_scope": norm, "ep_size": ep, "zero_stage": stage}
        for norm, ep, stage in cases
    ]
    expected = {norm: plain_gradient_norm(shared_only=norm == "shared") for norm in ("all", "shared")}
    assert expected["shared"] < 0.97 * expected["all"]  # far enough apart for bf16 to tell
    for norms in run_ranks(bf16_norms_on_ranks, 2, configs=configs):
        for (norm, *_), found in zip(cases, norms, strict=True):
            assert found == pytest.approx(expected[norm], rel=0.01)
