"""A run from first line to last: check everything, form the process group, build, train, save, draw."""

import logging
import os
import random
import sys

import numpy as np

from train.config import RunConfig, load_run_config
from train.deepspeed_config import check_monitors, check_topology, deepspeed_config
from train.inputs import Inputs, check_run_folder, open_inputs
from train.ranks import Ranks, read_ranks, start_process_group

EXIT_BAD_INPUT = 2


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 input that a user can correct (one line says how)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        config = load_run_config(argv)
        ranks = read_ranks(os.environ)
        settings, inputs = check(config, ranks)
    except (ValueError, OSError) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if config.dry_run:
        dry_run(config, ranks, inputs)
    else:
        run(config, ranks, settings, inputs)
    return 0


def check(config: RunConfig, ranks: Ranks) -> tuple[dict, Inputs]:
    """Everything that can be wrong, looked at before any process group exists. Raises ValueError."""
    from train.checkpoint import check_resume, run_identity

    check_topology(config, world_size=ranks.world_size)
    check_monitors(config)
    settings = deepspeed_config(config, world_size=ranks.world_size)
    inputs = open_inputs(config)
    if not config.dry_run:
        check_run_folder(config)
    digests = inputs.route_table_digests
    check_resume(config, run_identity(config, world_size=ranks.world_size, route_table_digests=digests))
    return settings, inputs


def run(config: RunConfig, ranks: Ranks, settings: dict, inputs: Inputs) -> None:
    """Collective over all ranks."""
    import deepspeed.comm as dist

    from train.checkpoint import resume, save_run_config
    from train.engine import start_engine
    from train.loop import train
    from train.metrics import RunLog
    from train.model import build_model, model_config

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    start_process_group(ranks)
    try:
        random.seed(config.seed)
        np.random.seed(config.seed % 2**32)
        if ranks.rank == 0:
            save_run_config(config)
        network = model_config(config, vocab_size=inputs.vocab_size, end_token_id=inputs.end_token_id)
        model = build_model(network, route_tables=inputs.tables, ep_size=config.ep_size, seed=config.seed)
        engine = start_engine(model, config, settings)
        first_step = resume(engine, config) if config.resume else 0
        log = RunLog(config, predicted_load=inputs.predicted_load, first_step=first_step)
        train(engine, config, inputs, log, first_step=first_step)
        log.close()
    finally:
        dist.destroy_process_group()


def dry_run(config: RunConfig, ranks: Ranks, inputs: Inputs) -> None:
    """Print sizes, memory and predicted load; nothing is built."""
    from train.dry_run import describe_run
    from train.model import model_config

    network = model_config(config, vocab_size=inputs.vocab_size, end_token_id=inputs.end_token_id)
    if ranks.rank == 0:
        print(describe_run(config, network, world_size=ranks.world_size, predicted_load=inputs.predicted_load))
