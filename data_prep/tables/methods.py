"""The methods that give keys their experts, by name: each hash function of the paper is a key and one of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_prep.tables.assignments import balanced_table, random_table, relabelled, round_robin_table
from data_prep.tables.expert_load import expert_load


@dataclass(frozen=True, eq=False)
class MethodInputs:
    """Everything that a method may use; each takes what it needs."""

    counts: np.ndarray  # int64 [num_keys]
    num_experts: int
    seed: int = 0
    ep_size: int = 1
    embeddings: np.ndarray | None = None  # float [num_keys, hidden_size] of a trained model
    base_load_E: np.ndarray | None = None  # int64 [num_experts], the load of split frequent tokens
    start_load_E: np.ndarray | None = None  # int64 [num_experts], the share of it at the start of contexts


def _balanced(inputs: MethodInputs, variant: int, top_k: int) -> np.ndarray:
    return balanced_table(
        inputs.counts,
        inputs.num_experts,
        top_k=top_k,
        seed=inputs.seed,
        variant=variant,
        ep_size=inputs.ep_size,
        base_load_E=inputs.base_load_E,
    )


def _random(inputs: MethodInputs, variant: int, top_k: int) -> np.ndarray:
    return random_table(len(inputs.counts), inputs.num_experts, top_k=top_k, seed=inputs.seed, variant=variant)


def _round_robin(inputs: MethodInputs, variant: int, top_k: int) -> np.ndarray:
    return round_robin_table(len(inputs.counts), inputs.num_experts, top_k=top_k)


def _clustered(inputs: MethodInputs, variant: int, top_k: int) -> np.ndarray:
    from data_prep.tables.clusters import clustered_table  # scikit-learn takes a second to import

    return clustered_table(inputs.embeddings, inputs.num_experts, seed=inputs.seed, variant=variant)[:, None]


def _dispersed(inputs: MethodInputs, variant: int, top_k: int) -> np.ndarray:
    from data_prep.tables.clusters import dispersed_table

    table = dispersed_table(inputs.embeddings, inputs.counts, inputs.num_experts, seed=inputs.seed, variant=variant)
    return table[:, None]


# method -> table number `variant`, int32 [num_keys, top_k]
METHODS: dict[str, Callable[[MethodInputs, int, int], np.ndarray]] = {
    "balanced": _balanced,
    "random": _random,
    "round_robin": _round_robin,
    "clustered": _clustered,
    "dispersed": _dispersed,
}
HAVE_TOP_K = ("balanced", "random", "round_robin")
HAVE_ROTATION = ("balanced", "random")
NEED_EMBEDDINGS = ("clustered", "dispersed")


def make_table(
    inputs: MethodInputs, method: str, *, layer: int, num_hashes: int = 1, top_k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return table number `layer`, int32 [num_keys, num_hashes * top_k], and its load, int64 [num_experts].

    Each (layer, hash) pair is a variant.
    """
    hashes = [
        relabelled(
            METHODS[method](inputs, layer * num_hashes + number, top_k),
            inputs.num_experts,
            hash_number=number,
            num_hashes=num_hashes,
            ep_size=inputs.ep_size,
        )
        for number in range(num_hashes)
    ]
    table = np.concatenate(hashes, axis=1)
    base_load_E = 0 if inputs.base_load_E is None else inputs.base_load_E
    return table, base_load_E + expert_load(table, inputs.counts, inputs.num_experts)
