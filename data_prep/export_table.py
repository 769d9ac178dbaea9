"""Write a route table for another program: `python -m data_prep.export_table TABLE --format NAME --output FILE`."""

import argparse
import sys

import numpy as np

from data_prep.counts.hash_keys import MAX_VOCAB_SIZE
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.storage.tensor_file import write_tensors
from data_prep.tables.expert_load import expert_load
from data_prep.tables.other_programs import FORMATS
from data_prep.tables.route_table import RouteTable
from data_prep.tables.route_table_file import read_route_table


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    table = read_route_table(arguments.table)
    tensors = export_table(table, arguments.format, layers=arguments.layers, resize=arguments.resize)
    metadata = {"format": "pt", "route_table_digest": table.digest, "tokenizer_digest": table.tokenizer_digest}
    write_tensors(arguments.output, tensors, metadata=metadata)
    for name, tensor in tensors.items():
        print(f"{name} {tensor.dtype} {list(tensor.shape)}")
    print(f"-> {arguments.output}")


def export_table(
    table: RouteTable, format_name: str, *, layers: list[int] | None = None, resize: int | None = None
) -> dict[str, np.ndarray]:
    """Return the tensors of `layers` (default: 0, 1, ...), each [vocab, top_k], under the program's names."""
    _check_plain(table, format_name)
    layers = list(range(table.num_tables)) if layers is None else layers
    if len(layers) != table.num_tables or len(set(layers)) != len(layers):
        raise ValueError(f"--layers {layers} must name {table.num_tables} different layers, one per table")
    if min(layers) < 0:
        raise ValueError(f"--layers {layers} must be numbers of layers, at least 0")
    if resize is not None and not 1 <= resize <= MAX_VOCAB_SIZE:
        raise ValueError(f"--resize {resize:,} is not in 1..{MAX_VOCAB_SIZE:,}; give the model's vocabulary")
    kind = FORMATS[format_name]
    tables = [resized(experts, table.num_experts, resize or len(experts)) for experts in table.tables]
    return {kind.tensor_name(layer): experts.astype(kind.dtype) for layer, experts in zip(layers, tables, strict=True)}


def resized(table: np.ndarray, num_experts: int, vocab_size: int) -> np.ndarray:
    """Cut a table [vocab, top_k] to a vocabulary, or pad it: each added id gets the experts with the fewest ids."""
    if vocab_size <= len(table):
        return table[:vocab_size]
    top_k = table.shape[1]
    num_ids_E = expert_load(table, np.ones(len(table), dtype=np.int64), num_experts)
    rows = []
    for _ in range(vocab_size - len(table)):
        rows.append(np.argsort(num_ids_E, kind="stable")[:top_k])
        num_ids_E[rows[-1]] += 1
    return np.concatenate([table, np.stack(rows).astype(table.dtype)])


def _check_plain(table: RouteTable, format_name: str) -> None:
    """Refuse tables that look up more than a token id."""
    if table.hash_key != "token" or table.num_hashes > 1 or table.rotation_period > 1 or table.split is not None:
        kind = f"key {table.hash_key}, {table.num_hashes} hashes, rotation period {table.rotation_period}"
        kind += ", split tokens" if table.split is not None else ""
        raise ValueError(
            f"{format_name} has tables of key token with 1 hash and no rotation, but this one has {kind}; "
            "build a plain table"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.export_table", description=__doc__)
    add = parser.add_argument
    add("table", metavar="TABLE", help="route table written by data_prep.build_table")
    add("--format", choices=sorted(FORMATS), required=True, help="program whose tensor names are written")
    add("--layers", type=int, nargs="+", help="layers of the model, one per table (default: 0, 1, ...)")
    add("--resize", type=int, metavar="V", help="pad or cut the table to a vocabulary of V ids")
    add("--output", required=True, metavar="FILE", help=".safetensors to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
