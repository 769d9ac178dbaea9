"""balanced_assignment: the same number of tokens for each expert, at the highest total score, found by an auction."""

import torch

EPSILON = 0.02  # share of the scores' range; a larger one is faster and less accurate
_ROUNDS = 200  # until epsilon doubles, so that every auction ends


@torch.no_grad()
def balanced_assignment(scores_TE: torch.Tensor, *, epsilon: float | None = None) -> torch.Tensor:
    """The expert of each token, int64 [T]; no expert takes more than ceil(T / E).

    The mean score is at most epsilon below the best possible (Bertsekas, 1992). epsilon is EPSILON times the range of
    the scores unless given, and doubles every 200 rounds. If T is not a multiple of E, the tokens are padded with ones
    that no expert prefers, which count in this mean. Non-finite scores count as the smallest finite one.
    """
    num_tokens, num_experts = scores_TE.shape
    places = -(-num_tokens // num_experts)
    scores_TE = _padded(scores_TE, places * num_experts)
    if num_experts == 1 or num_tokens == 0:
        return scores_TE.new_zeros(num_tokens, dtype=torch.int64)
    epsilon = epsilon or EPSILON * float(scores_TE.max() - scores_TE.min()) or EPSILON
    expert_T = torch.full((len(scores_TE),), -1, device=scores_TE.device)
    bid_T, price_E = torch.zeros_like(scores_TE[:, 0]), torch.zeros_like(scores_TE[0])
    rounds = 0
    while len(bidders := (expert_T < 0).nonzero().squeeze(1)):
        # A token bids the amount that makes its best expert as good as its second best, plus epsilon.
        (best, second), (expert, _) = (x.T for x in (scores_TE[bidders] - price_E).topk(2, dim=1))
        expert_T[bidders], bid_T[bidders] = expert, price_E[expert] + best - second + epsilon
        expert_T, price_E = _accept(expert_T, bid_T, price_E, places)
        rounds += 1
        epsilon *= 2 if rounds % _ROUNDS == 0 else 1
    return expert_T[:num_tokens]


def _accept(
    expert_T: torch.Tensor, bid_T: torch.Tensor, price_E: torch.Tensor, places: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each expert keeps the highest bids for its places, the lowest of which is its price; other tokens get -1."""
    order_T = bid_T.argsort(descending=True, stable=True)
    order_T = order_T[expert_T[order_T].argsort(stable=True)]
    sorted_T, count_E = expert_T[order_T], torch.bincount(expert_T, minlength=len(price_E))
    rank_T = torch.arange(len(order_T), device=order_T.device) - (count_E.cumsum(0) - count_E)[sorted_T]
    last_N = order_T[rank_T == places - 1]
    price_E = price_E.index_copy(0, expert_T[last_N], bid_T[last_N])
    return expert_T.index_fill(0, order_T[rank_T >= places], -1), price_E


def _padded(scores_TE: torch.Tensor, num_tokens: int) -> torch.Tensor:
    is_finite_TE = scores_TE.isfinite()
    smallest = scores_TE.where(is_finite_TE, torch.inf).amin() if is_finite_TE.any() else 0.0
    scores_TE = scores_TE.where(is_finite_TE, smallest)
    return torch.cat([scores_TE, scores_TE.new_zeros(num_tokens - len(scores_TE), scores_TE.shape[1])])
