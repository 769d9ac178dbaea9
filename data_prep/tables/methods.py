"""The ways to give keys their experts, by name: every hash function of the paper is a key and one of these methods."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.tables.assignments import balanced_table, random_table, relabelled, round_robin_table
from data_prep.tables.expert_load import expert_load
from data_prep.tables.top_k import balanced_top_k_table, random_top_k_table, round_robin_top_k_table


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a method may draw on; each takes what it needs."""

    counts: np.ndarray  # int64 [num_keys]
    num_experts: int
    seed: int = 0
    ep_size: int = 1
    embeddings: np.ndarray | None = None  # float [num_keys, width] of a trained model
    base_load_E: np.ndarray | None = None  # what split tokens bring to each expert, int64 [num_experts]
    start_load_E: np.ndarray | None = None  # how much of that starts contexts, where no token is before them


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
    from data_prep.tables.clusters import clustered_table  # scikit-learn takes a second to import

    return clustered_table(recipe.embeddings, recipe.num_experts, seed=recipe.seed, variant=variant)


def _dispersed(recipe: Recipe, variant: int) -> np.ndarray:
    from data_prep.tables.clusters import dispersed_table

    return dispersed_table(recipe.embeddings, recipe.counts, recipe.num_experts, seed=recipe.seed, variant=variant)


# method -> table number `variant` of a recipe, int32 [num_keys]
METHODS: dict[str, Callable[[Recipe, int], np.ndarray]] = {
    "balanced": _balanced,
    "random": _random,
    "round_robin": _round_robin,
    "clustered": _clustered,
    "dispersed": _dispersed,
}
TAKE_TURNS = ("balanced", "random")
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


def make_table(
    recipe: Recipe, method: str, *, layer: int, num_hashes: int = 1, top_k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return table number `layer`, int32 [num_keys, num_hashes or top_k], and its load, int64 [num_experts].

    (layer, hash) pairs are variants.
    """
    table = TOP_K_METHODS[method](recipe, layer, top_k) if top_k > 1 else _hashes(recipe, method, layer, num_hashes)
    base_load_E = 0 if recipe.base_load_E is None else recipe.base_load_E
    return table, base_load_E + expert_load(table, recipe.counts, recipe.num_experts)


def make_turns(recipe: Recipe, method: str, experts_PE: np.ndarray, *, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return table number `layer` with a column per turn, int32 [num_keys, P], and their load together.

    At turn p, experts_PE[p] stand in for the experts of one and the same table. The first turn has its own: it alone
    sees the split tokens that start a context, P times as often as turns do on average.
    """
    rotation_period, num_experts = experts_PE.shape
    none_E = np.zeros(num_experts, dtype=np.int64)
    start_E = none_E if recipe.start_load_E is None else recipe.start_load_E
    rest_E = (none_E if recipe.base_load_E is None else recipe.base_load_E) - start_E
    first = METHODS[method](replace(recipe, base_load_E=rest_E + rotation_period * start_E), layer)
    later = METHODS[method](replace(recipe, base_load_E=rest_E), layer) if start_E.any() else first
    columns, load_E = [], start_E.copy()
    for turn, stand_in_E in enumerate(experts_PE):
        table, left_over = (
            later if turn else first,
            rotation_period - 1 - turn,
        )  # the first turns get what cannot be divided
        light_E = expert_load(table, (recipe.counts + left_over) // rotation_period, num_experts)
        load_E[stand_in_E] += light_E + (rest_E + left_over) // rotation_period
        columns.append(stand_in_E[table])
    return np.stack(columns, axis=1), load_E


def _hashes(recipe: Recipe, method: str, layer: int, num_hashes: int) -> np.ndarray:
    hashes = []
    for number in range(num_hashes):
        table = METHODS[method](recipe, layer * num_hashes + number)
        hashes.append(
            relabelled(table, recipe.num_experts, hash_number=number, num_hashes=num_hashes, ep_size=recipe.ep_size)
        )
    return np.stack(hashes, axis=1)


def turn_experts(num_experts: int, rotation_period: int, *, ep_size: int = 1) -> np.ndarray:
    """Return which expert stands in for each one at each turn, int32 [rotation_period, num_experts]; turn 0: itself.

    Turns move on along the ring of ranks and, within each rank, along the ring of its experts: no expert stands in for
    another twice, and the experts of a rank stand in for those of one rank, so that ranks stay balanced.
    """
    if rotation_period > num_experts:
        raise ValueError(
            f"--rotation_period {rotation_period} exceeds the {num_experts} experts that take them; lower --rotation_period"
        )
    per_rank = num_experts // ep_size
    rank, local = np.divmod(np.arange(num_experts), per_rank)
    turn = np.arange(rotation_period)[:, None]
    rounds = -(-rotation_period // ep_size)  # times that the ring of ranks is gone round
    step = turn % ep_size + turn // ep_size * (per_rank // rounds)
    return ((rank + turn) % ep_size * per_rank + (local + step) % per_rank).astype(np.int32)


def check_method(
    method: str, *, hash_key: str, num_hashes: int, top_k: int, rotation_period: int, has_embeddings: bool, split: bool
) -> None:
    """Refuse combinations that mean nothing, naming the options at odds."""
    if num_hashes < 1 or top_k < 1 or (num_hashes > 1 and top_k > 1):
        raise ValueError(f"--num_hashes {num_hashes} and --top_k {top_k} must be at least 1, and one of them 1")
    if top_k > 1 and method not in TOP_K_METHODS:
        raise ValueError(f"--method {method} has no --top_k {top_k}; choose one of {', '.join(TOP_K_METHODS)}")
    if method in NEED_EMBEDDINGS and COUNTED_AS[hash_key] != "token":
        raise ValueError(f"--method {method} clusters tokens, but the key is {hash_key}; count with --hash_key token")
    if (method in NEED_EMBEDDINGS) != has_embeddings:
        needed = "needs" if method in NEED_EMBEDDINGS else "takes no"
        raise ValueError(f"--method {method} {needed} --embeddings MODEL_DIR of a trained model")
    if rotation_period < 1:
        raise ValueError(f"--rotation_period {rotation_period} must be at least 1")
    if rotation_period > 1 and (method not in TAKE_TURNS or hash_key != "token" or num_hashes * top_k > 1):
        raise ValueError(
            f"--rotation_period {rotation_period} needs --method {' or '.join(TAKE_TURNS)}, key token, one hash and top_k 1, not "
            f"{method}, {hash_key}, {num_hashes} and {top_k}"
        )
    if split and (method != "balanced" or hash_key != "token" or num_hashes * top_k > 1):
        raise ValueError(
            f"--split_frequent_tokens needs --method balanced, key token, one hash and top_k 1, not {method}, {hash_key}, "
            f"{num_hashes} and {top_k}"
        )
