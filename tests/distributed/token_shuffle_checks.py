"""What the tests of the token shuffle run on every rank."""

import torch
import torch.distributed as dist

from models.learned_ffn import LearnedFFN
from tests.distributed.training import make_model
from train.token_shuffle import TokenShuffle

TOKENS = 13  # which two ranks cannot halve


def check_on_ranks() -> dict:
    """What each of the functions below finds, by its name."""
    return {check.__name__: check() for check in (shuffled_tokens, shuffled_layers, loads_while_training)}


def shuffled_tokens() -> dict[str, torch.Tensor]:
    """Numbered tokens, what the layer was given, what came back after doubling, and the gradient of a weighted sum."""
    layer = make_model("base", ep_size=2).transformer.h[0].sparse
    torch.manual_seed(dist.get_rank())
    tokens = (dist.get_rank() * 100 + torch.arange(TOKENS)).float().unsqueeze(1).requires_grad_()
    seen = []

    def double(rows):
        seen.append(rows.detach().clone())
        return rows * 2

    outputs = layer.shuffle(double, tokens)
    weight = torch.arange(TOKENS).float().unsqueeze(1)
    (outputs * weight).sum().backward()
    return {"tokens": tokens.detach(), "seen": seen[0], "outputs": outputs.detach(), "grad": tokens.grad}


def shuffled_layers() -> dict[str, list[bool]]:
    """Which sparse layers shuffle, by router."""
    names = ("switch", "base", "base in place")
    models = {name: make_model(name, ep_size=2) for name in names} | {"alone": make_model("base")}
    return {
        name: [isinstance(layer.shuffle, TokenShuffle) for layer in model.modules() if isinstance(layer, LearnedFFN)]
        for name, model in models.items()
    }


def loads_while_training() -> list[int]:
    """Rows of each expert from this rank in a forward pass with shuffling."""
    model = make_model("base", ep_size=2).train()
    ids = torch.full((2, 8), dist.get_rank())  # all tokens of a rank are the same
    plans = model.transformer.plan(ids)
    model(ids, plans=plans, use_cache=False)
    return plans[0][0].rows_E
