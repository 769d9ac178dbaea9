"""The DeepSpeed JSON of a run: fills in "auto" from the run config, and refuses contradictions and silent failures."""

import importlib.util
import json
from pathlib import Path

from train.config.run_config import RunConfig
from train.processes.project_root import ROOT

DS_CONFIGS = ROOT / "ds_configs"

_LOGGER_PACKAGES = {"tensorboard": "tensorboard", "csv": "csv", "wandb": "wandb"}

# Sections that DeepSpeed accepts but that break hash-routed experts, most of them silently.
_REFUSED_SECTIONS = {
    "optimizer": "the run config owns the optimizer",
    "scheduler": "the run config owns the schedule",
    "fp16": "only fp32 and bf16 are supported; set precision in the run config",
    "amp": "only fp32 and bf16 are supported; set precision in the run config",
    "expert_parallel": "AutoEP would replace hash routers with learned ones; set ep_size in the run config",
    "tensor_parallel": "tensor parallelism multiplies the gradients of the experts by its size",
    "sequence_parallel_size": "sequence parallelism scales the gradients of the experts wrongly",
    "mesh_param": "mesh sequence parallelism does not reduce shared gradients",
    "use_data_before_expert_parallelism": "expert-parallel groups consist of consecutive ranks",
    "curriculum_learning": "DeepSpeed 0.19 refuses it",
    "elasticity": "elasticity changes the batch sizes, which the run config owns",
    "torch_autocast": "the run config owns the precision",
    "checkpoint": "the run config owns saving and resuming",
}

_WRONG_RANKS = "DeepSpeed would reduce the gradients of the experts over the wrong ranks"
# Settings with one right value, which is filled in, and the reason to refuse any other.
_FIXED = {
    "zero_optimization.contiguous_gradients": (True, _WRONG_RANKS),
    "zero_optimization.reduce_scatter": (True, _WRONG_RANKS),
    "timers.throughput.enabled": (False, "DeepSpeed would wait for the device twice per micro-batch"),
    "bf16.immediate_grad_update": (True, "bf16 gradients would stay in memory beside their fp32 sums"),
}

# ZeRO stages whose gradients are reduced after the whole backward pass, so that overlap_comm would have no effect.
_NEVER_OVERLAP = {"fp32": (0,), "bf16": (0, 1)}


def deepspeed_config(config: RunConfig, *, world_size: int) -> dict:
    """Read and resolve the JSON that config.ds_config names. ValueError, naming the file and both values."""
    path = find_ds_config(config.ds_config)
    settings = _read(path)
    _refuse_silent_failures(config, settings, path)
    for dotted, value in run_owned_values(config, world_size=world_size).items():
        _fill(settings, dotted, value, path, otherwise='write "auto" in the JSON, or change the run config')
    for dotted, (value, reason) in _FIXED.items():
        _fill(settings, dotted, value, path, otherwise=f"{reason} otherwise; remove it from the JSON")
    _refuse_left_over_auto(settings, path)
    return settings


def find_ds_config(name: str) -> Path:
    """The path of a JSON file, given as a path or as a name in ds_configs/."""
    path = Path(name) if name.endswith(".json") else DS_CONFIGS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in DS_CONFIGS.glob("*.json")))
        raise ValueError(f"ds_config {name!r} is neither a JSON file nor a name in ds_configs/: {known}")
    return path


def run_owned_values(config: RunConfig, *, world_size: int) -> dict:
    """Every DeepSpeed setting that the run config owns, by dotted name."""
    micro_batches = config.global_batch_size // (config.micro_batch_size * world_size)
    bf16 = config.precision == "bf16"
    folder = str(Path(config.run_dir) / "monitor")
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": config.max_grad_norm,  # always explicit: DeepSpeed's default is 1.0, not off
        "bf16.enabled": bf16,
        # Summed in bf16, the small gradients of micro-batches would vanish; ZeRO 0 supports nothing else.
        "data_types.grad_accum_dtype": "fp32" if bf16 and config.zero_stage > 0 else None,
        "communication_data_type": config.gradient_dtype,  # DeepSpeed's default adds the ranks' fp32 sums in bf16
        "zero_optimization.stage": config.zero_stage,
        "tensorboard.enabled": "tensorboard" in config.loggers,
        "tensorboard.output_path": folder,
        "tensorboard.job_name": "tensorboard",
        "csv_monitor.enabled": "csv" in config.loggers,
        "csv_monitor.output_path": folder,
        "csv_monitor.job_name": "csv",
        "wandb.enabled": "wandb" in config.loggers,
        "wandb.project": "hash-layers",
    }


def check_topology(config: RunConfig, *, world_size: int) -> None:
    """ValueError, naming both numbers, if the ranks do not fit the run config."""
    if world_size % config.ep_size:
        raise ValueError(
            f"a world of {world_size} ranks cannot be split into expert-parallel groups of ep_size={config.ep_size}; "
            f"start a multiple of {config.ep_size} ranks or choose an ep_size that divides {world_size}"
        )
    per_pass = config.micro_batch_size * world_size
    if config.global_batch_size % per_pass:
        raise ValueError(
            f"global_batch_size={config.global_batch_size} is not a multiple of micro_batch_size="
            f"{config.micro_batch_size} * {world_size} ranks = {per_pass}; change one of them"
        )


def check_loggers(config: RunConfig) -> None:
    """ValueError if the package of a logger is missing: DeepSpeed would fail on rank 0 while the other ranks wait."""
    for logger in config.loggers:
        if importlib.util.find_spec(_LOGGER_PACKAGES[logger]) is None:
            raise ValueError(f"logger {logger!r} needs the package {logger}: pip install {logger}")


def _read(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a mapping of settings to values")
    return settings


def _refuse_silent_failures(config: RunConfig, settings: dict, path: Path) -> None:
    for section, reason in _REFUSED_SECTIONS.items():
        if _is_on(settings.get(section), off=1 if section == "sequence_parallel_size" else None):
            raise ValueError(f"{path} sets {section}={json.dumps(settings[section])}: {reason}; remove it")
    zero = settings.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ValueError(f"{path} sets zero_optimization={json.dumps(zero)}, which must be a section {{...}}")
    _refuse_ignored_overlap(config, zero, path)
    for name in ("offload_optimizer", "offload_param"):
        device = (zero.get(name) or {}).get("device", "none")
        if device != "none":
            raise ValueError(
                f"{path} sets zero_optimization.{name}.device={device}: checkpoints and the guard against NaN "
                "do not reach offloaded state; remove it"
            )
    _refuse_bf16_without_zero(config)


def _refuse_ignored_overlap(config: RunConfig, zero: dict, path: Path) -> None:
    never = _NEVER_OVERLAP[config.precision]
    if zero.get("overlap_comm") and config.zero_stage in never:
        raise ValueError(
            f"{path} sets zero_optimization.overlap_comm=true, which DeepSpeed ignores with precision="
            f"{config.precision} and zero_stage={config.zero_stage}; choose zero_stage {never[-1] + 1} or more, "
            "or remove it"
        )


def _is_on(value, *, off: int | None) -> bool:
    if isinstance(value, dict):
        return value.get("enabled", True) is not False
    return value not in (None, False) and (isinstance(value, bool) or value != off)


def _refuse_bf16_without_zero(config: RunConfig) -> None:
    if config.precision != "bf16" or config.zero_stage > 0:
        return
    if config.ep_size > 1 and config.max_grad_norm > 0:
        raise ValueError(
            f"zero_stage=0 with bf16 clips by the norm of the shared parameters only "
            f"(max_grad_norm={config.max_grad_norm}, ep_size={config.ep_size}); choose zero_stage 1"
        )
    raise ValueError("zero_stage=0 with bf16 sums gradients in bf16 and keeps no fp32 weights; choose zero_stage 1")


def _refuse_left_over_auto(settings: dict, path: Path, prefix: str = "") -> None:
    for name, value in settings.items():
        if value == "auto":
            raise ValueError(f'{path} sets {prefix}{name}="auto", but no field of the run owns it; write a value')
        if isinstance(value, dict):
            _refuse_left_over_auto(value, path, f"{prefix}{name}.")


def _fill(settings: dict, dotted: str, value, path: Path, *, otherwise: str) -> None:
    """Set what is "auto" or absent. otherwise: the end of the error for another value."""
    *sections, name = dotted.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise ValueError(f"{path} sets {section}={json.dumps(settings)}, which must be a section {{...}}")
    given = settings.get(name, "auto")
    if given != "auto" and given != value:
        raise ValueError(f"{path} sets {dotted}={json.dumps(given)} but the run needs {json.dumps(value)}; {otherwise}")
    settings[name] = value
