"""Code that the tests of the token shuffle run on every rank."""

import torch
import torch.distributed as dist

from models.learned_ffn import LearnedFFN
from tests.distributed.training import make_model
from train.parallel.token_shuffle import TokenShuffle

TOKENS = 13  # odd, so that two ranks cannot halve it


def check_on_ranks() -> dict:
    """The result of each check below, by its name."""
    checks = (shuffled_tokens, shuffled_layers, loads_while_training, tokens_that_are_routed, checkpointing)
    return {check.__name__: check() for check in checks}


def shuffled_tokens() -> dict[str, torch.Tensor]:
    """Numbered tokens, the tokens that the layer received, the doubled outputs, and the gradient of a weighted sum."""
    layer = make_model("base", ep_size=2).transformer.h[0].sparse
    torch.manual_seed(dist.get_rank())
    tokens = (dist.get_rank() * 100 + torch.arange(TOKENS)).float().unsqueeze(1).requires_grad_()
    shuffled, restore = layer.shuffle(tokens)
    outputs = restore(shuffled * 2)
    weight = torch.arange(TOKENS).float().unsqueeze(1)
    (outputs * weight).sum().backward()
    return {"tokens": tokens.detach(), "seen": shuffled.detach(), "outputs": outputs.detach(), "grad": tokens.grad}


def shuffled_layers() -> dict[str, list[bool]]:
    """Which sparse layers shuffle, by router."""
    names = ("switch", "base", "base in place")
    models = {name: make_model(name, ep_size=2) for name in names} | {"alone": make_model("base")}
    return {
        name: [isinstance(layer.shuffle, TokenShuffle) for layer in model.modules() if isinstance(layer, LearnedFFN)]
        for name, model in models.items()
    }


def tokens_that_are_routed() -> dict[str, torch.Tensor]:
    """The rank of origin of each token that this rank routes, in training and in evaluation."""
    layer, rows = make_model("base", ep_size=2).transformer.h[0].sparse, []
    layer.experts.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].detach()[:, 0]))
    hidden = torch.randn(2, 8, 16)
    hidden[..., 0] = dist.get_rank()
    for training in (True, False):
        layer.train(training)(hidden, plans=[])
    return dict(zip(("training", "evaluation"), rows, strict=True))


def checkpointing() -> bool:
    """Whether recomputed blocks repeat their shuffle, so that the gradients are equal."""
    gradients = []
    for repeats in (False, True):
        model, ids = make_model("base", ep_size=2).train(), torch.arange(16).view(2, 8) + dist.get_rank()
        for parameter in model.parameters():  # new inserted layers are the identity
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
        if repeats:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(dist.get_rank())
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    return all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def loads_while_training() -> list[int]:
    """Tokens that this rank sends to each expert in a forward pass with shuffling."""
    model = make_model("base", ep_size=2).train()
    ids = torch.full((2, 8), dist.get_rank())  # all tokens of a rank are the same
    return model(ids, use_cache=False).routing[0].tokens_per_expert
