"""Recovery: find the checkpoint that a run resumes from, and compare every byte of it with its digest."""

from pathlib import Path

from train.checkpoint.files.manifest import OtherSchemaError
from train.checkpoint.folders import Checkpoint, clean_up, open_checkpoint, quarantine, quarantined_checkpoints
from train.config.run_paths import completed_checkpoints
from train.processes.agreement import Group


def latest_valid_checkpoint(checkpoints: Path, group: Group) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint, or None if there is none yet, and notices. Collective over the group.

    The ranks share the reading. A damaged checkpoint is quarantined as step_N.damaged, and a notice says so.
    ValueError if there were checkpoints and all are damaged: a run never silently restarts from step 0.
    OtherSchemaError on all ranks if other code has written the newest one, which then keeps its name.
    """
    notices = []
    if group.rank == 0:
        clean_up(checkpoints)
    while True:
        # Rank 0 looks for all ranks, since their views of a shared disk may lag behind.
        folder, damaged = group.gather(_look(checkpoints) if group.rank == 0 else None)[0]
        if folder is None and damaged:
            raise ValueError(
                f"every checkpoint in {checkpoints} is damaged ({', '.join(damaged)}); restore one from a copy, or "
                "start again in another run_dir"
            )
        if folder is None:
            return None, notices
        checkpoint, damage = _open_and_check(folder, part=group.rank, num_parts=group.size)
        damage = next((found for found in group.gather(damage) if found), None)
        if damage is None:
            return checkpoint, notices
        if isinstance(damage, OtherSchemaError):
            raise damage
        renamed = group.gather(quarantine(folder) if group.rank == 0 else None)[0]
        notices.append(f"note: {damage}; it is now {renamed}, and the run falls back to the checkpoint before it")


def _look(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest completed checkpoint, not checked, and the names of those in quarantine."""
    folder = next(iter(completed_checkpoints(checkpoints)), None)
    return folder, [path.name for path in quarantined_checkpoints(checkpoints)]


def _open_and_check(folder: Path, *, part: int, num_parts: int) -> tuple[Checkpoint | None, Exception | None]:
    """The checkpoint, or its damage, as far as manifest, file sizes and the digests of one part of the files tell."""
    try:
        checkpoint = open_checkpoint(folder)
        checkpoint.check_digests(part=part, num_parts=num_parts)
    except (OSError, ValueError) as error:
        return None, error
    return checkpoint, None
