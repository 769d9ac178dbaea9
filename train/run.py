"""A run from first line to last: process group, model, engine, training, plots."""

import logging
import random
import warnings

import deepspeed.comm as dist
import numpy as np

from models.configuration_hash_gpt import HashGPTConfig
from train.checkpoint import resume
from train.config import RunConfig
from train.engine import start_engine
from train.inputs import Inputs
from train.loop import train
from train.metrics import RunLog
from train.model import build_model
from train.process_group import start_process_group
from train.ranks import Ranks
from train.run_folder import save_run_config


def run(config: RunConfig, ranks: Ranks, settings: dict, inputs: Inputs, network: HashGPTConfig) -> None:
    """Collective over all ranks. `settings` is the resolved DeepSpeed JSON."""
    silence_libraries()
    start_process_group(ranks)
    try:
        random.seed(config.seed)
        np.random.seed(config.seed % 2**32)
        if ranks.rank == 0:
            save_run_config(config)
        model = build_model(network, route_tables=inputs.route_tables, ep_size=config.ep_size, seed=config.seed)
        engine = start_engine(model, config, settings)
        first_step = resume(engine, config) if config.resume else 0
        log = RunLog(config, predicted_load=inputs.predicted_load, first_step=first_step)
        for notice in [*resume_notices(config, first_step), *inputs.notices(config)]:
            log.say(notice)
        train(engine, config, inputs, log, first_step=first_step)
        log.close()
    finally:
        dist.destroy_process_group()


def resume_notices(config: RunConfig, first_step: int) -> list[str]:
    """Where a resumed run goes on; nothing for a new one."""
    if not config.resume:
        return []
    if first_step == 0:
        return [f"note: {config.run_dir} holds no complete checkpoint, so the run begins at step 0"]
    return [f"note: going on from step {first_step:,}"]


def silence_libraries() -> None:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch is about to change; a user can do nothing about it.
    warnings.filterwarnings("ignore", message=".*is deprecated. Please use `torch.distributed", category=FutureWarning)
