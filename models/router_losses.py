"""Losses and limits that keep learned routers from sending all tokens to a few experts."""

import math

import torch
from torch.nn import functional


def balance_loss(probs_TE: torch.Tensor, expert_T: torch.Tensor) -> torch.Tensor:
    """E * sum(f_i * P_i): f_i the share of tokens whose first choice is expert i, P_i its mean probability.

    1 if both are even, E if one expert gets all (Fedus et al., 2021, equation 4; Lepikhin et al., 2020).
    """
    num_experts = probs_TE.shape[1]
    share_E = torch.bincount(expert_T, minlength=num_experts) / len(expert_T)
    return num_experts * (share_E * probs_TE.mean(0)).sum()


def z_loss(logits_TE: torch.Tensor) -> torch.Tensor:
    """Mean squared log of the softmax's denominator, which keeps logits small (Zoph et al., 2022)."""
    return logits_TE.logsumexp(1).square().mean()


def entropy(logits_TE: torch.Tensor) -> torch.Tensor:
    """Entropy of the softmax over the experts, in nats, the mean over all tokens; no gradient."""
    log_probs_TE = logits_TE.detach().log_softmax(1)
    return -(log_probs_TE.exp() * log_probs_TE).sum(1).mean()


def capacity(num_pairs: int, num_experts: int, factor: float | None) -> int:
    """Maximum number of pairs per expert: its even share times the factor, rounded up; all of them for None."""
    # 1.2 * 10 / 4 is 3.0000000000000004 in floating point and should be 3, so a little is subtracted.
    return num_pairs if factor is None else max(1, math.ceil(factor * num_pairs / num_experts - 1e-9))


def within_capacity(expert_N: torch.Tensor, num_experts: int, limit: int) -> torch.Tensor:
    """Whether each pair is among the first `limit` pairs of its expert, bool [N]."""
    place_NE = functional.one_hot(expert_N, num_experts).cumsum(0)
    return place_NE.gather(1, expert_N.unsqueeze(1)).squeeze(1) <= limit
