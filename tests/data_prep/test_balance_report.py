"""The report measures every kind of table on both corpora."""

import numpy as np

from data_prep import count_tokens
from data_prep.balance_report import main
from tests.data_prep.shards.test_token_stream import write_folder


def tokens(seed):
    values = np.random.Generator(np.random.PCG64(seed)).integers(0, 100, 20_000) ** 3 // 10_000
    return [[values.tolist()]]


def test_split_tables_are_balanced_if_no_other_is(tmp_path, capsys):
    for seed, name in enumerate(("train", "valid")):
        write_folder(tmp_path / name, shards=tokens(seed), vocab_size=100)
    count_tokens.main([str(tmp_path / "train")])
    capsys.readouterr()
    arguments = ["--counts", tmp_path / "train" / "counts.safetensors", "--data", tmp_path / "valid"]
    arguments += ["--num_experts", 8, "--ep_size", 2, "--context_length", 16]
    assert main([str(argument) for argument in arguments]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    split = "balanced per rank, split"
    kinds = ["random", "balanced", "balanced per rank", split, f"{split}, rotation 8"]
    assert [row[1] for row in rows[2:]] == kinds
    loads = {row[1]: [float(cell) for cell in row[2:]] for row in rows[2:]}
    assert loads["balanced"][0] == loads["balanced"][2] > 1.2
    assert loads[split][0] < 1.05 and loads[split][3] < 1.1
    assert loads[f"{split}, rotation 8"][0] < 1.05 and loads[f"{split}, rotation 8"][3] < loads[split][3]
