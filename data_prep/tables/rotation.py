"""Rotation: the expert of a token depends on its position, so that each part of the vocabulary meets many experts.

Beyond the paper. Every column of the table divides the keys into the same E parts and gives them to other experts. The
token at position p goes by column p % C; with 4 experts and C = 2 columns (the rotation period):

    part of the vocabulary        0  1  2  3
    positions 0, 2, 4, ...   ->   0  1  2  3   experts of column 0: each serves its own part
    positions 1, 3, 5, ...   ->   2  3  0  1   experts of column 1
"""

from dataclasses import replace

import numpy as np

from data_prep.tables.expert_load import expert_load
from data_prep.tables.frequent_tokens import FrequentTokenSplit, group_code
from data_prep.tables.methods import METHODS, MethodInputs


def rotation_experts(num_experts: int, rotation_period: int, *, ep_size: int = 1) -> np.ndarray:
    """Return the expert that serves each part in each column, int32 [C, E]: the rows of the drawing.

    Columns step along the ring of ranks and, within each rank, along the ring of its experts. No expert serves a part
    in two columns, and the parts of one rank always move to one rank together, so that ranks stay balanced.
    """
    if rotation_period > num_experts:
        raise ValueError(
            f"--rotation_period {rotation_period} exceeds the {num_experts} experts that rotate; "
            f"give at most {num_experts}"
        )
    per_rank = num_experts // ep_size
    rank, local = np.divmod(np.arange(num_experts), per_rank)
    column = np.arange(rotation_period)[:, None]
    num_rounds = -(-rotation_period // ep_size)  # how often the columns go round the ring of ranks
    step = column % ep_size + column // ep_size * (per_rank // num_rounds)
    return ((rank + column) % ep_size * per_rank + (local + step) % per_rank).astype(np.int32)


def make_rotation_table(
    inputs: MethodInputs, method: str, expert_CE: np.ndarray, *, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return table number `layer`, int32 [num_keys, C], and the load of all its columns together, int64 [E].

    Frequent tokens that start a context are always at position 0: column 0 gets all of them, C times its share. So it
    divides the keys in its own way, around that load; without such tokens all columns share one division.
    """
    rotation_period, num_experts = expert_CE.shape
    none_E = np.zeros(num_experts, dtype=np.int64)
    start_E = none_E if inputs.start_load_E is None else inputs.start_load_E
    other_E = (none_E if inputs.base_load_E is None else inputs.base_load_E) - start_E
    first_part_K = _divide(inputs, method, base_load_E=other_E + rotation_period * start_E, layer=layer)
    later_part_K = _divide(inputs, method, base_load_E=other_E, layer=layer) if start_E.any() else first_part_K
    columns, load_E = [], start_E.copy()
    for column, expert_E in enumerate(expert_CE):
        part_K = first_part_K if column == 0 else later_part_K
        remainder = rotation_period - 1 - column  # the first columns count what the period does not divide
        part_load_E = expert_load(part_K, (inputs.counts + remainder) // rotation_period, num_experts)
        load_E[expert_E] += part_load_E + (other_E + remainder) // rotation_period
        columns.append(expert_E[part_K])
    return np.stack(columns, axis=1), load_E


def rotated_split(split: FrequentTokenSplit, expert_CE: np.ndarray) -> FrequentTokenSplit:
    """Return a split whose experts rotate: what expert e served, expert_CE[p % C, e] serves at position p.

    Every entry becomes a group: group e of the result for expert e, group E + g for group g.
    """
    rotation_period, num_experts = expert_CE.shape
    num_steps = _shortest_period(split.position_table)
    own = np.repeat(np.arange(num_experts)[:, None], num_steps, axis=1)
    step_table = np.concatenate([own, split.position_table[:, :num_steps]])  # [groups of the result, num_steps]
    position = np.arange(rotation_period * num_steps)
    # One step per round of the columns, so that every part meets every column.
    unrotated = step_table[:, position // rotation_period % num_steps]
    entry = split.split_table
    group = np.where(entry >= 0, entry, num_experts + group_code(entry))
    return FrequentTokenSplit(
        split.split_index,
        group_code(group).astype(np.int32),
        expert_CE[position % rotation_period, unrotated].astype(np.int32),
    )


def _divide(inputs: MethodInputs, method: str, *, base_load_E: np.ndarray, layer: int) -> np.ndarray:
    """Return the part of each key, int32 [num_keys]."""
    return METHODS[method](replace(inputs, base_load_E=base_load_E), layer, 1)[:, 0]


def _shortest_period(position_table: np.ndarray) -> int:
    period = position_table.shape[1]
    divisors = (steps for steps in range(1, period + 1) if period % steps == 0)
    return next(steps for steps in divisors if (position_table[:, steps:] == position_table[:, :-steps]).all())
