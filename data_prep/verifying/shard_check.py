"""Check every bit of the three files of one token shard."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.shards.blocks import BlockCheck, check_ids
from data_prep.shards.manifest import Manifest, Shard, check_listed, check_size
from data_prep.shards.megatron_index import check_index, index_size
from data_prep.shards.verified import FileState, trusted_state


@dataclass(frozen=True)
class Verdict:
    """What a check of a token shard found."""

    problems: tuple[str, ...]  # one sentence per damaged file
    state: FileState | None  # of its .bin, if that is intact; None if not, or if it changed too recently to be trusted


def check_shard(shard: Shard, on_read: Callable[[int], object], *, folder: Path, manifest: Manifest) -> Verdict:
    """Read all files of a token shard, and compare them with the manifest."""
    index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
    states: list[FileState | None] = []
    problems = [
        problem_of(index, partial(_check_index, index, shard)),
        problem_of(tokens, partial(_check_tokens, tokens, shard, manifest, states, on_read=on_read)),
    ]
    return Verdict(tuple(problem for problem in problems if problem), next(iter(states), None))


def problem_of(path: Path, check: Callable[[], object]) -> str | None:
    """Return what is wrong with a file if `check` raises ValueError or OSError, else None."""
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"  # an error of the disk names no file
    return None


def _check_tokens(
    path: Path, shard: Shard, manifest: Manifest, states: list[FileState | None], *, on_read: Callable[[int], object]
) -> None:
    """Append the state of the file to `states` if the file is intact."""
    check_listed(path)
    state, dtype = trusted_state(path), np.dtype(manifest.dtype).newbyteorder("<")
    num_bytes = shard.num_tokens * dtype.itemsize
    check_size(path, path.stat().st_size, num_bytes)
    check = BlockCheck(path, shard, num_bytes=num_bytes)
    damage = []
    for first, content in check.pieces():
        damage += check.damage(content, first=first)
        if not damage:
            check_ids(path, np.frombuffer(content, dtype), vocab_size=manifest.vocab_size)
        on_read(len(content))
    if damage:
        raise ValueError(f"{damage[0]} ({len(damage)} of its {check.num_blocks} blocks are damaged)")
    states.append(state)


def _check_index(path: Path, shard: Shard) -> None:
    check_listed(path)
    check_size(path, path.stat().st_size, index_size(shard.num_documents))
    check_index(path, path.read_bytes(), xxh3=shard.index_xxh3)
