"""The budget of a step on a device: no pass waits, and the optimizer step waits once.

On a GPU, passes run under torch.cuda.set_sync_debug_mode("error"), which ends them at the call that waits. Whether
ZeRO 3 frees the experts between the passes needs two ranks: one rank has all weights, and gathers none.
"""

from itertools import islice

from launch.gpu_acceptance.measuring.engines import (
    batches_ahead,
    join_alone,
    network,
    start,
    take_step,
    zero_3_settings,
)
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from launch.gpu_acceptance.measuring.step_observer import Spent, StepObserver
from train.faults.supervision import Supervision
from train.processes.stop_request import StopRequest

_STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}
_STEPS = 3  # the last one counts: the first ones allocate, and ZeRO 3 learns the order of the modules
CASES = {
    f"{precision}, ZeRO {stage}": {"precision": precision, "zero_stage": stage}
    for precision, stages in _STAGES.items()
    for stage in stages
}
CASES["bf16, ZeRO 1, recomputed"] = {**CASES["bf16, ZeRO 1"], "activation_checkpointing": True}


def measure(setting: Setting) -> list[Figure]:
    join_alone()
    ds_config = zero_3_settings(setting.work_folder("budgets"))
    figures = []
    for name, fields in CASES.items():
        figures += _figures(name, {**fields, "ds_config": ds_config}, setting)
    figures += _figures("bf16, ZeRO 1, dense", {**CASES["bf16, ZeRO 1"], "ds_config": ds_config}, setting, sparse=False)
    return figures


def _figures(name: str, fields: dict, setting: Setting, *, sparse: bool = True) -> list[Figure]:
    """A case that waits does not keep the others from being measured."""
    try:
        spent = spend_step(setting, sparse=sparse, **fields)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return [Figure(f"{name}: waits of the passes", 1, at_most=0, note=where_raised(error))]
    passes = sum(sum(spent.waits[phase].values()) for phase in ("forward", "backward"))
    step = max(sum(spent.waits["step"].values()), spent.num_alarms)
    return [
        Figure(f"{name}: waits of the passes", passes, at_most=0, note=_calls(spent, "forward", "backward")),
        Figure(f"{name}: waits of the optimizer step", step, at_most=1, note=_calls(spent, "step")),
    ]


def spend_step(setting: Setting, *, sparse: bool, **fields) -> Spent:
    """What the last of a few steps of two micro-batches spends; on a GPU, its passes raise if they wait."""
    width = setting.size(512, 16)
    config = network(
        vocab_size=setting.size(4096, 64), max_position_embeddings=setting.size(256, 16), hidden_size=width,
        num_hidden_layers=3, num_attention_heads=width // 8, sparse_layers=[0, 2] if sparse else [], num_experts=8,
    )  # fmt: skip
    folder = str(setting.work_folder("budgets"))
    # Adam counts its steps in host memory, which looks like a wait only where the host is the device.
    optimizer = "sgd" if setting.device == "cpu" else "adam"
    engine, run = start(
        config, global_batch_size=4, micro_batch_size=2, optimizer=optimizer, run_dir=folder, **fields
    )  # fmt: skip
    observer = StepObserver(engine, run)
    watch = Supervision(engine, run, None, StopRequest(folder, looks_for_file=False))
    # All batches are on the device before the first step: the thread that moves them may wait, and the alarm is global.
    batches = iter(list(batches_ahead(engine, run, num_steps=_STEPS)))
    for step in range(_STEPS):
        observer.spent, observer.sounds_alarm = Spent(), step == _STEPS - 1
        take_step(observer, islice(batches, 2), watch)
    return observer.spent


def _calls(spent: Spent, *phases: str) -> str:
    return ", ".join(f"{phase}: {call} {count}" for phase in phases for call, count in spent.waits[phase].items())


def where_raised(error: BaseException) -> str:
    """File and line of the innermost frame of the project's or a library's Python code."""
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    return f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}: {str(error).splitlines()[0]}"
