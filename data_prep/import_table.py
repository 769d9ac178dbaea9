"""Import another program's table, so that it can be checked: `python -m data_prep.import_table MODEL --format NAME`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.storage.model_weights import read_tensor, tensor_files
from data_prep.tables.expert_load import check_experts
from data_prep.tables.other_programs import FORMATS
from data_prep.tables.route_table import RouteTable
from data_prep.tables.route_table_file import write_route_table


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    digest = tokenizer_digest(load_tokenizer(arguments.tokenizer))
    table = import_table(arguments.model, arguments.format, num_experts=arguments.num_experts, tokenizer_digest=digest)
    write_route_table(arguments.output, table)
    print(
        f"{table.num_tables} tables of {table.vocab_size:,} ids, top {table.top_k} of {table.num_experts} experts "
        f"-> {arguments.output}  {table.digest}"
    )


def import_table(model: str | Path, format_name: str, *, num_experts: int, tokenizer_digest: str) -> RouteTable:
    """Return the tables of all hash layers of `model`, a .safetensors file or a folder of them, in layer order."""
    check_experts(num_experts, 1)
    kind, files = FORMATS[format_name], tensor_files(model)
    names = {layer: name for name in files if (layer := kind.layer(name)) is not None}
    if not names:
        raise ValueError(f"{model} has no tensor {kind.name}, the name of {format_name}; choose another --format")
    tables = [_integers(read_tensor(files[name], name), name) for _, name in sorted(names.items())]
    shapes = sorted({table.shape for table in tables})
    if len(shapes) > 1:
        raise ValueError(
            f"{model} holds tables of shapes {shapes}, but a route table has one shape; import them separately"
        )
    stacked = np.stack(tables)
    if not 0 <= stacked.min() <= stacked.max() < num_experts:
        raise ValueError(
            f"{model} routes to experts {stacked.min()}..{stacked.max()}, but only 0..{num_experts - 1} exist; "
            "give the model's --num_experts"
        )
    return RouteTable(
        tables=stacked.astype(np.int32),
        num_experts=num_experts,
        method="imported",
        seed=0,
        columns="top_k",
        tokenizer_digest=tokenizer_digest,
    )


def _integers(table: np.ndarray, name: str) -> np.ndarray:
    integers = table.astype(np.int64)
    if table.ndim != 2 or not np.array_equal(integers, table):
        raise ValueError(f"{name} is {table.dtype} {list(table.shape)}, but whole numbers [vocab, top_k] are needed")
    return integers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.import_table", description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help=".safetensors file, or a model's folder")
    add("--format", choices=sorted(FORMATS), required=True, help="program whose tensor names are read")
    add("--num_experts", type=int, required=True, help="number of experts of a layer")
    add("--tokenizer", required=True, metavar="DIR", help="the model's tokenizer, whose ids the table routes")
    add("--output", required=True, metavar="FILE", help="route table to write, .safetensors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
