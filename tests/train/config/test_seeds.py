"""Seeds are the same on every machine and in every version."""

from train.config.seeds import derive_seed, dropout_seed


def test_a_derived_seed_never_changes():
    assert derive_seed(0) == 3582888934675442504
    assert derive_seed(1234, "transformer.h.1.mlp", 3) == 4100416685493866413


def test_derived_seeds_fit_torch_and_depend_on_every_part():
    seeds = {derive_seed(*parts) for parts in [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), ("0",)]}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_rank_and_every_step_has_its_own_dropout():
    seeds = {dropout_seed(7, step, rank=rank) for step in range(3) for rank in range(2)}
    assert len(seeds) == 6
