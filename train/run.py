"""A run from start to end: process group, model, engine, training, plots, and the exit code."""

import os
import random
import sys
import time
import traceback
from contextlib import suppress

import deepspeed.comm as dist
import numpy as np

from models.configuration_hash_gpt import HashGPTConfig
from train.checkpoint.checkpoint import resume
from train.checkpoint.commit import CheckpointError
from train.checkpoint.disk_space import check_disk_space
from train.checkpoint.run_folder import save_run_config
from train.config.run_config import RunConfig
from train.engine.engine import start_engine
from train.engine.model import build_model
from train.faults.events import resume_command, write_event
from train.faults.nonfinite import NonFiniteError
from train.faults.supervision import Supervision, start_watchdog
from train.inputs import Inputs
from train.loop import train
from train.metrics.run_log import RunLog
from train.processes.error_origin import is_ours
from train.processes.exit_codes import (
    EXIT_BAD_INPUT,
    EXIT_CRASHED,
    EXIT_DONE,
    EXIT_LOST_RANK,
    EXIT_NONFINITE,
    EXIT_NOT_SAVED,
    EXIT_STOPPED,
)
from train.processes.process_group import silence_libraries, start_process_group
from train.processes.ranks import Ranks
from train.processes.stop_request import StopRequest, StopRequested

# Parts of the messages of gloo and NCCL about a rank that is gone.
_LOST_RANK = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "closed by remote peer",
    "remote process exit", "ncclRemoteError",
)  # fmt: skip
_ENDS = {StopRequested: EXIT_STOPPED, NonFiniteError: EXIT_NONFINITE, CheckpointError: EXIT_NOT_SAVED}


def run(
    config: RunConfig, ranks: Ranks, settings: dict, inputs: Inputs, network: HashGPTConfig, stop: StopRequest
) -> int:
    """The exit code. Collective over all ranks. `settings` is the resolved DeepSpeed JSON."""
    silence_libraries()
    try:
        start_process_group(ranks, timeout_seconds=config.hang_timeout_seconds)
        _run(config, ranks, settings, inputs, network, stop)
    except tuple(_ENDS) as end:
        if ranks.rank == 0:
            stop.clear()
            print(f"{end}\nresume with: {resume_command(config.run_dir)}", file=sys.stderr, flush=True)
        dist.destroy_process_group()
        return _ENDS[type(end)]
    except ValueError as error:
        if not is_ours(error):
            return _crash(config, ranks, error)
        # A damaged checkpoint or token shard: every error that can be found without reading the files was found before.
        print(f"error: rank {ranks.rank} exits: {error}", file=sys.stderr, flush=True)
        write_event(config.run_dir, "bad input", rank=ranks.rank, error=str(error), traceback=traceback.format_exc())
        return EXIT_BAD_INPUT
    except Exception as error:
        return _crash(config, ranks, error)
    if ranks.rank == 0:
        stop.clear()  # a request that came during the last step
    dist.destroy_process_group()
    return EXIT_DONE


def _run(
    config: RunConfig, ranks: Ranks, settings: dict, inputs: Inputs, network: HashGPTConfig, stop: StopRequest
) -> None:
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    if ranks.rank == 0:
        save_run_config(config)
    watchdog = start_watchdog(config, rank=ranks.rank, world_size=ranks.world_size)
    model = build_model(network, route_tables=inputs.route_tables, ep_size=config.ep_size, seed=config.seed)
    engine = start_engine(model, config, settings)
    manifest, damage_notices = resume(engine, config)
    first_step = manifest["step"] if manifest else 0
    watch = Supervision(engine, config, watchdog, stop)
    watch.num_skipped = manifest["num_skipped"] if manifest else 0
    for damage in damage_notices:
        watch.report("damaged checkpoint", damage=damage)
    log = RunLog(config, predicted_load=inputs.predicted_load, first_step=first_step)
    notices = [*damage_notices, *resume_notices(manifest, ranks, config), *inputs.notices(config)]
    for notice in [*notices, check_disk_space(config, network)]:
        if notice:
            log.print_line(notice)
    try:
        train(engine, config, inputs, log, watch, first_step=first_step)
    except StopRequested:
        log.close()  # if only the last validation is missing, the resumed run takes no steps: log the expert loads now
        raise
    log.close()
    if watchdog:
        watchdog.stop()


def resume_notices(manifest: dict | None, ranks: Ranks, config: RunConfig) -> list[str]:
    """The step from which a run resumes, and changes in how it is spread over ranks; nothing for a new run."""
    if manifest is None:
        return []
    now = {"world_size": ranks.world_size, "ep_size": config.ep_size, "zero_stage": config.zero_stage}
    changes = [f"{name}={value} (was {manifest[name]})" for name, value in now.items() if manifest[name] != value]
    return [f"note: resuming from step {manifest['step']:,}" + (f" with {', '.join(changes)}" if changes else "")]


def _crash(config: RunConfig, ranks: Ranks, error: Exception) -> int:
    """Report an unforeseen end. A rank that only lost another one waits, so that the launcher sees that one first."""
    lost = any(text in str(error) for text in _LOST_RANK)
    write_event(
        config.run_dir, "lost rank" if lost else "crash", rank=ranks.rank, error=f"{type(error).__name__}: {error}"
    )
    with suppress(OSError):  # stderr may lead to the host that is gone
        traceback.print_exc()
    if not lost:
        return EXIT_CRASHED
    time.sleep(1.1)  # DeepSpeed's launcher looks every second
    sys.stdout.flush()
    os._exit(EXIT_LOST_RANK)  # a normal exit would first clean up the broken process group
