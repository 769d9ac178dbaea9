"""All measurements of check_table on one table, as one value."""

from dataclasses import dataclass

import numpy as np

from data_prep.counts.counts_file import Counts
from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.held_out_load import BatchLoad, batch_loads, whole_load
from data_prep.tables.expert_load import check_experts, lower_bound, rank_load, worst_max_over_mean
from data_prep.tables.route_table import RouteTable


@dataclass(frozen=True, eq=False)
class TableCheck:
    """A table's load on tokens that it was not built from; loads count (token, choice) pairs."""

    name: str
    table: RouteTable
    data: str  # the folder or mixture of tokens
    num_tokens: int  # that were measured
    context_length: int
    ep_size: int
    layer: int  # the table that `batches` are of
    load_LE: np.ndarray  # int64 [num_tables, num_experts]
    lower_bound: float  # the least max/mean that any table of this kind could have on these tokens
    batches: list[BatchLoad]

    @property
    def max_over_mean(self) -> float:
        return worst_max_over_mean(self.load_LE)

    @property
    def rank_max_over_mean(self) -> float:
        return worst_max_over_mean(rank_load(self.load_LE, self.ep_size))


def measure_table(
    table: RouteTable,
    contexts: Contexts,
    counts: Counts,
    *,
    name: str,
    ep_size: int,
    layer: int,
    batch_sizes: list[int],
    seed: int = 0,
) -> TableCheck:
    """Measure `table` on `contexts`, whose keys occur as `counts` says."""
    check_experts(table.num_experts, ep_size)
    if not 0 <= layer < table.num_tables:
        raise ValueError(f"--layer {layer} is not among the table's 0..{table.num_tables - 1}")
    return TableCheck(
        name=name,
        table=table,
        data=contexts.data,
        num_tokens=contexts.num_tokens,
        context_length=contexts.context_length,
        ep_size=ep_size,
        layer=layer,
        load_LE=np.stack([whole_load(table, number, contexts) for number in range(table.num_tables)]),
        lower_bound=_lower_bound(table, counts),
        batches=batch_loads(table, layer, contexts, sizes=batch_sizes, ep_size=ep_size, seed=seed),
    )


def _lower_bound(table: RouteTable, counts: Counts) -> float:
    undivided = counts.counts
    if table.split is not None:
        undivided = np.where(table.split.split_index >= 0, 0, counts.counts)
    choices = table.num_choices * table.rotation_period  # a key's tokens are divided among them
    return lower_bound(undivided, table.num_experts, total=counts.num_tokens, choices=choices)
