"""Whether the newest checkpoint of a run is the expected one, and whole."""

from launch.gpu_acceptance.measuring.figures import Figure
from train.checkpoint.folders import find_newest
from train.config.run_paths import checkpoints_dir


def whole_checkpoint(run_dir: str, *, step: int) -> Figure:
    """1 if the newest checkpoint is of this step and all of its files have their digests, else 0 and the problem."""
    problem = _problem(run_dir, step)
    return Figure(f"checkpoint of step {step} is whole", float(problem is None), at_least=1, note=problem or "")


def _problem(run_dir: str, step: int) -> str | None:
    checkpoint, problems = find_newest(checkpoints_dir(run_dir))
    if problems:
        return problems[0]
    if checkpoint is None or checkpoint.manifest["step"] != step:
        return f"the newest checkpoint is {checkpoint.folder if checkpoint else None}"
    try:
        checkpoint.check_digests()
    except (ValueError, OSError) as error:
        return str(error)
    return None
