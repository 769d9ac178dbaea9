"""The loss without logits has the value and the gradients of the plain loss, in little memory."""

from collections import Counter

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from models.output_matrix import IGNORED, OutputMatrix, linear_cross_entropy
from tests.models.tiny import VOCAB, tiny_model, token_ids


def make_inputs(dtype: torch.dtype, *, num_tokens: int = 300, vocab_size: int = 50, hidden_size: int = 16):
    """Hidden states, a matrix, and targets, of which two are ignored. 300 tokens are three chunks, the last shorter."""
    generator = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(num_tokens, hidden_size, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(vocab_size, hidden_size, generator=generator).to(dtype).requires_grad_()
    target_T = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    target_T[[1, 290]] = IGNORED
    return hidden_TD, weight_VD, target_T


def plain(hidden_TD, weight_VD, target_T, *, reduction="mean"):
    return cross_entropy((hidden_TD @ weight_VD.T).float(), target_T, ignore_index=IGNORED, reduction=reduction)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_loss_and_gradients_are_those_of_the_plain_loss(dtype, tolerance, factor):
    hidden_TD, weight_VD, target_T = make_inputs(dtype)
    loss, loss_T = linear_cross_entropy(hidden_TD, weight_VD, target_T)
    expected = plain(hidden_TD, weight_VD, target_T)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss_T, plain(hidden_TD, weight_VD, target_T, reduction="none"), rtol=1e-5, atol=1e-6)
    leaves = (hidden_TD, weight_VD)
    found = torch.autograd.grad(loss * factor, leaves)
    for a, b in zip(found, torch.autograd.grad(expected * factor, leaves), strict=True):
        assert a.dtype == dtype and (a - b).norm() <= tolerance * b.norm()


def test_the_scale_of_the_loss_is_not_rounded():
    hidden_TD, weight_VD, target_T = make_inputs(torch.bfloat16)
    loss, _ = linear_cross_entropy(hidden_TD, weight_VD, target_T)
    leaves, third = (hidden_TD, weight_VD), 1 / 3  # of 3 micro-batches; 0.2 % larger in bf16
    whole = torch.autograd.grad(loss, leaves, retain_graph=True)
    for part, grad in zip(torch.autograd.grad(loss * third, leaves), whole, strict=True):
        assert part.dtype == torch.bfloat16
        assert part.float().norm().item() == pytest.approx(third * grad.float().norm().item(), rel=5e-4)


def test_the_matrix_alone_or_nothing_may_need_a_gradient():
    hidden_TD, weight_VD, target_T = make_inputs(torch.float32)
    loss, _ = linear_cross_entropy(hidden_TD.detach(), weight_VD, target_T)
    expected = torch.autograd.grad(plain(hidden_TD.detach(), weight_VD, target_T), weight_VD)
    torch.testing.assert_close(torch.autograd.grad(loss, weight_VD), expected)
    with torch.no_grad(), PeakBytes() as memory:
        assert linear_cross_entropy(hidden_TD, weight_VD, target_T)[0] == loss
    assert memory.calls["mm"] == 3 and not memory.calls["addmm_"]  # the logits of three chunks, and no gradient


def test_tied_embeddings_get_both_gradients():
    model, ids = tiny_model(), token_ids(3, 8)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    outputs = model(inputs, targets=targets, use_cache=False)
    expected = plain(model.transformer(inputs, use_cache=False).last_hidden_state.flatten(0, 1), model.lm_head.weight,
                     targets.flatten())  # fmt: skip
    assert outputs.logits is None and outputs.token_losses.shape == targets.shape
    assert model.lm_head.weight is model.transformer.wte.weight
    leaves = list(model.parameters())
    found = torch.autograd.grad(outputs.loss, leaves)
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves), rtol=1e-4, atol=1e-7)


def test_labels_and_targets_exclude_each_other():
    with pytest.raises(ValueError, match="labels and targets"):
        tiny_model()(token_ids(), labels=token_ids(), targets=token_ids())


def test_a_resized_model_still_needs_no_logits():
    model = tiny_model()
    model.resize_token_embeddings(VOCAB + 3)
    assert type(model.lm_head) is OutputMatrix and model.lm_head.weight is model.transformer.wte.weight
    assert model(token_ids(), targets=token_ids(), use_cache=False).loss.isfinite()


class PeakBytes(TorchDispatchMode):
    """The most bytes of storages made inside that were ever alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.calls = {}, 0, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        outputs = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive.setdefault(torch.multiprocessing.reductions.StorageWeakRef(storage), storage.nbytes())
        self.alive = {storage: size for storage, size in self.alive.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_needs_less_than_one_byte_per_logit(dtype):
    num_tokens, vocab_size = 4096, 1024
    hidden_TD, weight_VD, target_T = make_inputs(dtype, num_tokens=num_tokens, vocab_size=vocab_size, hidden_size=8)
    with PeakBytes() as memory:
        linear_cross_entropy(hidden_TD, weight_VD, target_T)[0].backward()
    assert memory.peak < num_tokens * vocab_size
    with PeakBytes() as memory:
        plain(hidden_TD, weight_VD, target_T).backward()
    assert memory.peak > 8 * num_tokens * vocab_size
