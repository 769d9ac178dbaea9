"""The layer itself: hash layers compute what the paper says, gradients included."""

import torch
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from models.hash_keys import TokenContext, previous_tokens
from models.sparse_ffn import SparseFFN
from tests.models.tiny import tiny_config, tiny_model, token_ids


def make_layer(table: list[int], num_experts: int) -> SparseFFN:
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(table), num_experts=num_experts)
    layer = SparseFFN(config, 0).double()
    layer.router.set_table(torch.tensor(table).unsqueeze(1))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def make_plans(layer: SparseFFN, input_ids: torch.Tensor) -> list:
    position = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    return layer.plan(TokenContext(input_ids, previous_tokens(input_ids, None, none=99), position))


def naive(layer: SparseFFN, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """One token at a time, straight from the definition."""
    experts, table, out = layer.experts, layer.router.route_table, []
    for row, token in zip(hidden.reshape(-1, hidden.shape[-1]), input_ids.flatten(), strict=True):
        e = int(table[token, 0])
        up = experts.act(row @ experts.up_proj[e] + experts.up_proj_bias[e])
        out.append(up @ experts.down_proj[e] + experts.down_proj_bias[e])
    return torch.stack(out).view_as(hidden)


def test_experts_equal_a_naive_loop_over_tokens_with_one_expert_idle():
    layer = make_layer([0, 2, 2, 0, 2], num_experts=3)
    input_ids = torch.tensor([[0, 1, 4], [3, 2, 0]])
    hidden = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 8, dtype=torch.float64)

    (naive(layer, hidden, input_ids) * weight).sum().backward()
    expected = [hidden.grad.clone()] + [p.grad.clone() for p in layer.parameters()]
    hidden.grad = None
    layer.zero_grad()
    fast, _ = layer(hidden, make_plans(layer, input_ids))
    (fast * weight).sum().backward()

    torch.testing.assert_close(fast, naive(layer, hidden, input_ids))
    for found, wanted in zip([hidden.grad] + [p.grad for p in layer.parameters()], expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_gradient_of_an_idle_expert_is_zero_not_missing():
    layer = make_layer([0, 2], num_experts=3)
    input_ids = torch.tensor([[0, 1]])
    outputs, _ = layer(torch.randn(1, 2, 8, dtype=torch.float64), make_plans(layer, input_ids))
    outputs.sum().backward()
    assert layer.experts.up_proj.grad[1].abs().max() == 0
    assert layer.experts.up_proj.grad[0].abs().max() > 0


def test_one_expert_is_the_dense_feed_forward():
    layer = make_layer([0] * 5, num_experts=1)
    dense = GPT2MLP(32, tiny_config()).double()
    experts = layer.experts
    with torch.no_grad():
        dense.c_fc.weight.copy_(experts.up_proj[0])
        dense.c_fc.bias.copy_(experts.up_proj_bias[0])
        dense.c_proj.weight.copy_(experts.down_proj[0])
        dense.c_proj.bias.copy_(experts.down_proj_bias[0])
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    sparse_out, _ = layer(hidden, make_plans(layer, torch.arange(10).view(2, 5) % 5))
    dense_out = dense(hidden)
    torch.testing.assert_close(sparse_out, dense_out)
    sparse_out.square().sum().backward()
    dense_out.square().sum().backward()
    torch.testing.assert_close(experts.up_proj.grad[0], dense.c_fc.weight.grad)
    torch.testing.assert_close(experts.down_proj_bias.grad[0], dense.c_proj.bias.grad)


def test_plans_made_ahead_give_the_same_logits():
    model, ids = tiny_model(), token_ids()
    assert torch.equal(model(ids).logits, model(ids, plans=model.transformer.plan(ids)).logits)


def test_a_plan_counts_the_tokens_of_each_expert():
    layer = make_layer([0, 2, 2, 0, 2], num_experts=3)
    [plan] = make_plans(layer, torch.tensor([[0, 1, 4], [3, 2, 0]]))
    assert plan.tokens_per_expert == [3, 0, 3]
    assert plan.order_N.tolist() == [0, 3, 5, 1, 2, 4]
