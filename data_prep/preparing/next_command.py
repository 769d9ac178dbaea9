"""The command that comes after a corpus is prepared."""

import shlex
from pathlib import Path

from data_prep.preparing.validation import Validation
from data_prep.tables.route_table import RouteTable

NO_TABLE = "repeat this command with --num_experts E --ep_size RANKS: it keeps what is there and adds the route table"


def next_command(
    output: Path, table: RouteTable | None, table_path: Path | None, validation: Validation, *, context_length: int
) -> str:
    """Return the training command; without a table, how to get one."""
    if table is None:
        return NO_TABLE
    ranks = table.ep_size
    launcher = ["deepspeed", "--num_gpus", str(ranks)] if ranks > 1 else ["python"]
    options = {
        "config": "RECIPE.yaml",
        "train_data": output,
        **validation.options,
        "route_table": table_path,
        "num_experts": table.num_experts,
        "ep_size": ranks,
        "context_length": context_length,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return shlex.join([*launcher, "launch/train.py", *words])
