"""OutputMatrix: hidden states to logits, or straight to their loss, for which a few rows of logits exist at a time."""

import torch
from torch import nn

IGNORED = -100  # a target that bears on no loss, as in torch and transformers


class OutputMatrix(nn.Linear):
    """A linear layer without bias that can also compare with targets."""

    def __init__(self, hidden_size: int, vocab_size: int, **options):
        super().__init__(hidden_size, vocab_size, bias=False, **options)

    def forward(self, hidden_BSD: torch.Tensor, target_BS: torch.Tensor | None = None):
        """The logits [B, S, V]; with targets, their mean cross-entropy, and that of each token, float32 [B, S]."""
        if target_BS is None:
            return super().forward(hidden_BSD)
        loss, loss_T = linear_cross_entropy(hidden_BSD.flatten(0, 1), self.weight, target_BS.flatten())
        return loss, loss_T.view_as(target_BS)


def linear_cross_entropy(
    hidden_TD: torch.Tensor, weight_VD: torch.Tensor, target_T: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over the targets that are not IGNORED, and the cross-entropy of each token, which has no gradient.

    Logits that are kept for the backward pass take 14 bytes each, more than all else in a small model. Here the
    gradients are made in the forward pass, chunk by chunk, so that nothing is kept or computed twice.
    """
    needs_gradients = torch.is_grad_enabled() and (hidden_TD.requires_grad or weight_VD.requires_grad)
    return _LinearCrossEntropy.apply(hidden_TD, weight_VD, target_T, needs_gradients)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_TD, weight_VD, target_T, needs_gradients):
        loss_T = hidden_TD.new_empty(len(hidden_TD), dtype=torch.float32)
        counts_T = target_T != IGNORED
        share_T = counts_T / counts_T.sum()  # of each token in the mean
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs_gradients else None
        # In float32, as the products of chunks are rounded to the format of the weights before they are added.
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_gradients else None
        for chunk in _chunks(hidden_TD):
            target_C = target_T[chunk]
            log_probability_CV = torch.log_softmax(hidden_TD[chunk] @ weight_VD.T, dim=1, dtype=torch.float32)
            loss_T[chunk] = -_at(log_probability_CV, target_C) * counts_T[chunk]
            if needs_gradients:
                grad_CV = _gradient_of_logits(log_probability_CV, target_C, share_T[chunk]).to(weight_VD.dtype)
                grad_hidden_TD[chunk] = grad_CV @ weight_VD
                _add_product(grad_weight_VD, grad_CV.T, hidden_TD[chunk])
        if needs_gradients:
            ctx.save_for_backward(grad_hidden_TD, grad_weight_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(loss_T)
        return (loss_T * share_T).sum(), loss_T

    @staticmethod
    def backward(ctx, grad, _):
        return *(_times(tensor, grad) for tensor in ctx.saved_tensors), None, None


def _chunks(hidden_TD: torch.Tensor) -> list[slice]:
    """A CPU's cache holds the logits of some 100 tokens; a GPU needs many rows, and a sixteenth is little memory."""
    num_rows = 128 if hidden_TD.device.type == "cpu" else max(128, len(hidden_TD) // 16)
    return [slice(first, first + num_rows) for first in range(0, len(hidden_TD), num_rows)]


def _times(tensor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The product with a scalar, in the tensor's format; a factor such as 1/3 is not rounded to that before."""
    return torch.mul(tensor, factor.view(1), out=torch.empty_like(tensor))  # a 0-d factor would be


def _at(values_CV: torch.Tensor, target_C: torch.Tensor) -> torch.Tensor:
    return values_CV.gather(1, target_C.clamp(min=0).unsqueeze(1)).squeeze(1)


def _gradient_of_logits(
    log_probability_CV: torch.Tensor, target_C: torch.Tensor, share_C: torch.Tensor
) -> torch.Tensor:
    """Each token's share of softmax - one-hot, float32, in the place of the log-probabilities."""
    grad_CV = log_probability_CV.exp_().mul_(share_C.unsqueeze(1))
    return grad_CV.scatter_add_(1, target_C.clamp(min=0).unsqueeze(1), -share_C.unsqueeze(1))


def _add_product(sum_VD: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dtype == sum_VD.dtype:
        sum_VD.addmm_(a, b)
    else:
        sum_VD.add_(a @ b)
