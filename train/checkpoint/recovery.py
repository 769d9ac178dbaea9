"""Recovery: which checkpoint a run goes on from, after every byte of it was compared with its digest."""

from collections.abc import Callable
from pathlib import Path

from train.checkpoint.commit import (
    check_digests,
    check_sizes,
    clean_up,
    completed_checkpoints,
    quarantine,
    read_manifest,
)


def latest_valid_checkpoint(
    checkpoints: Path, *, rank: int, gather: Callable[[object], list]
) -> tuple[Path | None, list[str]]:
    """The newest sound checkpoint, or None where there is none yet. Collective over all ranks.

    The ranks share the work of reading. A damaged checkpoint is set aside as step_N.damaged, and a line says so.
    ValueError where there were checkpoints and all are damaged: a run never begins again unasked.
    """
    world_size, notices = len(gather(None)), []
    if rank == 0:
        clean_up(checkpoints)
    while True:
        # Rank 0 looks and tells the others, whose view of a shared disk may lag behind.
        folder = gather(newest_checkpoint(checkpoints) if rank == 0 else None)[0]
        if isinstance(folder, ValueError):
            raise folder
        if folder is None:
            return None, notices
        damages = gather(_damage(folder, part=rank, num_parts=world_size))
        damage = next((found for found in damages if found), None)
        if damage is None:
            return folder, notices
        aside = gather(quarantine(folder, ".damaged") if rank == 0 else None)[0]
        notices.append(f"note: {damage}; it is now {aside}, and the run goes back to the checkpoint before")


def newest_checkpoint(checkpoints: Path) -> Path | ValueError | None:
    """The completed checkpoint with the most steps; an error, not raised, where all there were are set aside."""
    folders = completed_checkpoints(checkpoints)
    damaged = sorted(path.name for path in checkpoints.glob("step_*.damaged"))
    if not folders and damaged:
        return ValueError(
            f"every checkpoint in {checkpoints} is damaged ({', '.join(damaged)}); restore one from a copy, or begin "
            "again in another run_dir"
        )
    return folders[0] if folders else None


def obvious_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint as far as its manifest and the sizes of its files tell."""
    try:
        check_sizes(folder, read_manifest(folder))
    except (OSError, ValueError) as error:
        return str(error)


def _damage(folder: Path, *, part: int, num_parts: int) -> str | None:
    """What is wrong with a checkpoint, of all manifest and sizes and of one part of the files' digests."""
    damage = obvious_damage(folder)
    if damage:
        return damage
    try:
        check_digests(folder, read_manifest(folder), part=part, num_parts=num_parts)
    except (OSError, ValueError) as error:
        return str(error)
