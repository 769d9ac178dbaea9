"""A run of more than 500 million parameters by its own command: killed between two checkpoints, then resumed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from launch.gpu_acceptance.measuring.checkpoints import whole_checkpoint
from launch.gpu_acceptance.measuring.corpus import make_corpus
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from models.parameter_count import count_parameters
from train.config.recipe_file import write_recipe
from train.config.run_config import RunConfig
from train.config.run_paths import checkpoints_dir, completed_checkpoints, step_of
from train.inputs import open_inputs
from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord
from train.processes.project_root import ROOT

_STEPS, _SAVE_EVERY, _KILL_AFTER = 50, 20, 25
_RELATIVE_ROUNDING = 2e-3  # bf16 sums of a GPU's atomic additions differ between runs


def measure(setting: Setting) -> list[Figure]:
    config = _config(setting)
    shutil.rmtree(config.run_dir, ignore_errors=True)
    recipe = Path(config.run_dir).with_suffix(".yaml")
    write_recipe(config, recipe)
    _kill_after(_KILL_AFTER, _start(recipe), config)
    resumed_from = step_of(completed_checkpoints(checkpoints_dir(config.run_dir))[0])
    before = {point.step: point.loss for point in read_points(_metrics(config), TrainRecord)}
    status = _start(recipe).wait()
    points = read_points(_metrics(config), TrainRecord)
    return [
        Figure("parameters", num_parameters(config), at_least=5e8, skipped=setting.without_speed),
        Figure("exit status of the resumed run", status, at_most=0),
        Figure("steps of the finished run", points[-1].step, at_least=_STEPS),
        *figures_of_losses(before, {point.step: point.loss for point in points}, resumed_from=resumed_from),
        whole_checkpoint(config.run_dir, step=_STEPS),
        Figure("speed", points[-1].tokens_per_second, "tokens/s"),
        Figure("peak memory", points[-1].peak_memory_bytes / 2**30, "GiB"),
    ]


def _config(setting: Setting) -> RunConfig:
    """12 blocks with 2 hash layers of 32 experts: 2 * 32 * 8.4 M + 134 M = 671 M parameters."""
    folder = setting.work_folder("resume")
    width, num_experts, length, sequences = setting.size((1024, 32, 1024, 16), (64, 4, 64, 8))
    return RunConfig(
        **make_corpus(folder / "data", num_experts=num_experts, num_tables=2),
        num_hidden_layers=12, sparse_layers=[5, 11], num_experts=num_experts, hidden_size=width,
        num_attention_heads=width // 32, context_length=length, global_batch_size=sequences,
        micro_batch_size=sequences // 2, precision="bf16", activation="gelu_pytorch_tanh", lr=3e-4, warmup_steps=10,
        max_steps=_STEPS, save_every=_SAVE_EVERY, keep_last=1, eval_every=0, log_every=1, zero_stage=1,
        run_dir=str(folder / "run"),
    )  # fmt: skip


def num_parameters(config: RunConfig) -> int:
    return count_parameters(open_inputs(config).network(config)).total


def _metrics(config: RunConfig) -> Path:
    return Path(config.run_dir) / "metrics.jsonl"


def _start(recipe: Path) -> subprocess.Popen:
    """The command that a person would type; its output goes to this part's log."""
    return subprocess.Popen([sys.executable, "launch/train.py", "--config", str(recipe)], cwd=ROOT)


def _kill_after(step: int, process: subprocess.Popen, config: RunConfig) -> None:
    """SIGKILL as soon as the log has this step. RuntimeError if the run ends before."""
    while _last_step(config) < step:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with exit status {process.returncode} before step {step}")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _last_step(config: RunConfig) -> int:
    """Of the last whole line of the log; 0 before there is one."""
    path = _metrics(config)
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return max((json.loads(line).get("step", 0) for line in lines[-1:]), default=0)


def figures_of_losses(before: dict[int, float], after: dict[int, float], *, resumed_from: int) -> list[Figure]:
    """The steps behind the checkpoint were taken twice; both times, their losses must be equal but for rounding.

    before, after: the loss of each step in the log when the run was killed, and when it had ended.
    """
    differences = [abs(after[step] - before[step]) / before[step] for step in before if step > resumed_from]
    note = f"steps {resumed_from + 1} to {max(before)}" if differences else "no step was repeated: killed too late"
    return [
        Figure("repeated steps", len(differences), at_least=1, note=note),
        Figure("relative difference of losses", max(differences, default=None), at_most=_RELATIVE_ROUNDING),
        Figure("last loss / first", after[_STEPS] / after[1], at_most=0.98),
    ]
