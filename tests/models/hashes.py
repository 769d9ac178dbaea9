"""One configuration of every kind of hash layer, with tables that leave the last of four experts idle."""

import torch

from models.choices import HASH_KEYS
from models.router_hash import num_keys

NUM_EXPERTS = 4

# name -> fields of the configuration. Two sparse layers, so that the second is tested behind the first.
HASHES = {
    **{key: {"hash_keys": [key, key]} for key in HASH_KEYS},
    "token and bigram": {"hash_keys": ["token", "bigram"]},
    "split tokens": {"hash_keys": ["token", "previous"], "split_sizes": [[2, 1, 3], [0, 0, 0]]},
    "rotation": {"hash_keys": ["token", "token"], "rotation_period": 4},
    "split tokens, rotation": {
        "hash_keys": ["token", "token"],
        "split_sizes": [[2, 1, 3], [0, 0, 0]],
        "rotation_period": 2,
    },
    **{f"MultiHash {n}": {"hash_keys": ["token", "previous"], "num_hashes": n} for n in (2, 4, 8)},
    "inserted": {"hash_keys": ["token", "bigram"], "placement": "insert"},
    "inserted, 3 sublayers": {"hash_keys": ["token", "bigram"], "placement": "insert", "num_sublayers": 3},
}


def make_tables(config, index: int) -> dict[str, torch.Tensor]:
    """Random tables that leave the last expert idle; of the frequent tokens 1 and 2, one bigram goes by position."""
    generator = torch.Generator().manual_seed(index)
    rows = num_keys(config.hash_keys[index], config)
    tables = {
        "route_table": torch.randint(0, 3, (rows, config.num_hashes * config.rotation_period), generator=generator)
    }
    if config.split_sizes and config.split_sizes[index][0]:
        split_index = torch.full((config.vocab_size,), -1)
        split_index[1], split_index[2] = 0, 1
        split_table = torch.randint(0, 3, (2, config.vocab_size + 1), generator=generator)
        split_table[0, 5] = split_table[1, 1] = -1
        tables |= {"split_index": split_index, "split_table": split_table, "position_table": torch.tensor([[0, 2, 1]])}
    return tables
