"""The ways to give keys their experts, by name: every hash function of the paper is a key and one of these methods."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_prep.assignments import balanced_table, random_table, relabelled, round_robin_table
from data_prep.hash_keys import COUNTED_AS
from data_prep.top_k import balanced_top_k_table, random_top_k_table, round_robin_top_k_table


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a method may draw on; each takes what it needs."""

    counts: np.ndarray  # int64 [num_keys]
    num_experts: int
    seed: int = 0
    ep_size: int = 1
    embeddings: np.ndarray | None = None  # float [num_keys, width] of a trained model
    base_load_E: np.ndarray | None = None  # what split tokens bring to each expert, int64 [num_experts]


def _balanced(recipe: Recipe, variant: int) -> np.ndarray:
    return balanced_table(
        recipe.counts,
        recipe.num_experts,
        seed=recipe.seed,
        variant=variant,
        ep_size=recipe.ep_size,
        base_load_E=recipe.base_load_E,
    )


def _random(recipe: Recipe, variant: int) -> np.ndarray:
    return random_table(len(recipe.counts), recipe.num_experts, seed=recipe.seed, variant=variant)


def _round_robin(recipe: Recipe, variant: int) -> np.ndarray:
    return round_robin_table(len(recipe.counts), recipe.num_experts)


def _clustered(recipe: Recipe, variant: int) -> np.ndarray:
    from data_prep.clusters import clustered_table  # scikit-learn takes a second to import

    return clustered_table(recipe.embeddings, recipe.num_experts, seed=recipe.seed, variant=variant)


def _dispersed(recipe: Recipe, variant: int) -> np.ndarray:
    from data_prep.clusters import dispersed_table

    return dispersed_table(recipe.embeddings, recipe.counts, recipe.num_experts, seed=recipe.seed, variant=variant)


# method -> table number `variant` of a recipe, int32 [num_keys]
METHODS: dict[str, Callable[[Recipe, int], np.ndarray]] = {
    "balanced": _balanced,
    "random": _random,
    "round_robin": _round_robin,
    "clustered": _clustered,
    "dispersed": _dispersed,
}
NEED_EMBEDDINGS = ("clustered", "dispersed")

# method -> table number `variant` of a recipe with top_k different experts per key, int32 [num_keys, top_k]
TOP_K_METHODS: dict[str, Callable[[Recipe, int, int], np.ndarray]] = {
    "balanced": lambda recipe, variant, top_k: balanced_top_k_table(
        recipe.counts, recipe.num_experts, top_k, seed=recipe.seed, variant=variant, ep_size=recipe.ep_size
    ),
    "random": lambda recipe, variant, top_k: random_top_k_table(
        len(recipe.counts), recipe.num_experts, top_k, seed=recipe.seed, variant=variant
    ),
    "round_robin": lambda recipe, variant, top_k: round_robin_top_k_table(
        len(recipe.counts), recipe.num_experts, top_k
    ),
}


def make_table(recipe: Recipe, method: str, *, layer: int, num_hashes: int = 1, top_k: int = 1) -> np.ndarray:
    """Return table number `layer`, int32 [num_keys, num_hashes or top_k]; (layer, hash) pairs are variants."""
    if top_k > 1:
        return TOP_K_METHODS[method](recipe, layer, top_k)
    hashes = []
    for number in range(num_hashes):
        table = METHODS[method](recipe, layer * num_hashes + number)
        hashes.append(
            relabelled(table, recipe.num_experts, hash_number=number, num_hashes=num_hashes, ep_size=recipe.ep_size)
        )
    return np.stack(hashes, axis=1)


def check_method(method: str, *, key: str, num_hashes: int, top_k: int, has_embeddings: bool, split: bool) -> None:
    """Refuse combinations that mean nothing, naming the options at odds."""
    if num_hashes < 1 or top_k < 1 or (num_hashes > 1 and top_k > 1):
        raise ValueError(f"--num_hashes {num_hashes} and --top_k {top_k} must be at least 1, and one of them 1")
    if top_k > 1 and method not in TOP_K_METHODS:
        raise ValueError(f"--method {method} has no --top_k {top_k}; choose one of {', '.join(TOP_K_METHODS)}")
    if method in NEED_EMBEDDINGS and COUNTED_AS[key] != "token":
        raise ValueError(f"--method {method} clusters tokens, but the key is {key}; count with --key token")
    if (method in NEED_EMBEDDINGS) != has_embeddings:
        needed = "needs" if method in NEED_EMBEDDINGS else "takes no"
        raise ValueError(f"--method {method} {needed} --embeddings MODEL_DIR of a trained model")
    if split and (method != "balanced" or key != "token" or num_hashes * top_k > 1):
        raise ValueError(
            f"--split_heavy needs --method balanced, key token, one hash and top_k 1, not {method}, {key}, "
            f"{num_hashes} and {top_k}"
        )
