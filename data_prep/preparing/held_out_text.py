"""Held-out text must not be trained on: no raw shard of a part to train on may be one of a held-out part too."""

from collections import defaultdict
from pathlib import Path

from data_prep.documents.files.include import Include
from data_prep.documents.files.local_files import true_path
from data_prep.documents.raw_shards import RawFile, RawShard

RawShards = dict[str, list[RawShard]]  # of each part, by its name


def check_held_out(trained: RawShards, held_out: RawShards) -> None:
    """Raise ValueError if raw shards of both are the same file, data set, or members of an archive, links or not."""
    if not held_out:
        return
    true_folders: dict[Path, str] = {}
    parts: dict[str, list[tuple[Include, str]]] = defaultdict(list)  # where text lies -> the held-out parts of it
    for name, raw_shards in held_out.items():
        for raw_shard in raw_shards:
            parts[_place(raw_shard, true_folders)].append((_include(raw_shard), name))
    in_both = [
        (raw_shard.label, trained_name, name)
        for trained_name, raw_shards in trained.items()
        for raw_shard in raw_shards
        for include, name in parts.get(_place(raw_shard, true_folders), ())
        if include == _include(raw_shard) or () in (include, _include(raw_shard))
    ]
    if in_both:
        label, trained_name, name = in_both[0]
        more = f" and {len(in_both) - 1:,} more raw shards are" if len(in_both) > 1 else " is"
        raise ValueError(
            f"{label}{more} in {trained_name}, which is trained on, and in {name}, which is held out; move the "
            "held-out text out of the other, or name what to train on without it"
        )


def _place(raw_shard: RawShard, true_folders: dict[Path, str]) -> str:
    """Return the true path of a file, the URL of a remote one, or the data set."""
    if not isinstance(raw_shard, RawFile):
        return raw_shard.dataset
    path = raw_shard.path
    return true_path(path, true_folders) if isinstance(path, Path) else raw_shard.label


def _include(raw_shard: RawShard) -> Include:
    """Return the patterns of the members that are read of an archive; () is all."""
    return raw_shard.include if isinstance(raw_shard, RawFile) else ()
