"""Seeds for random generators, derived from the seed of the run and the purpose of each."""

import hashlib


def derive_seed(*parts) -> int:
    """A 63-bit seed from any values, the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def dropout_seed(seed: int, step: int, *, rank: int) -> int:
    """The seed of one rank's dropout in one step, so that a resumed run equals an uninterrupted one."""
    return derive_seed(seed, "dropout", step, rank)
