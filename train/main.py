"""The command of a run: read the config, check everything that can be wrong, then run, or only describe the run."""

import os
import sys
from dataclasses import replace

from models.configuration_hash_gpt import HashGPTConfig
from train.assumed_network import assumed_network, missing_inputs
from train.checkpoint.disk_space import check_disk_space
from train.checkpoint.run_folder import check_resume, check_run_folder
from train.config.arguments import load_run_config
from train.config.deepspeed_config import check_loggers, check_topology, deepspeed_config
from train.config.run_config import RunConfig
from train.dry_run import describe_run
from train.inputs import Inputs, open_inputs
from train.processes.exit_codes import EXIT_BAD_INPUT, EXIT_DONE
from train.processes.ranks import Ranks, is_first_of_its_host, read_ranks
from train.processes.stop_request import StopRequest


def main(argv: list[str] | None = None) -> int:
    """The exit code of this process; docs/reliability.md lists them."""
    try:
        config = load_run_config(sys.argv[1:] if argv is None else argv)
        ranks = dry_run_ranks(config) if config.dry_run else read_ranks(os.environ)
        settings = check_settings(config, ranks)
        if config.dry_run:
            description = describe(config, ranks)
        else:
            inputs, network = check_inputs(config)
    except (ValueError, OSError) as error:
        if is_first_of_its_host(os.environ):  # one line per host, since hosts may lack different files
            print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if config.dry_run:
        if ranks.rank == 0:
            print(description)
        return EXIT_DONE
    stop = StopRequest(config.run_dir, looks_for_file=ranks.rank == 0)
    stop.listen()
    from train.run import run  # not above: DeepSpeed takes seconds to import, and an error should take none

    return run(config, ranks, settings, inputs, network, stop)


def check_settings(config: RunConfig, ranks: Ranks) -> dict:
    """The DeepSpeed settings. ValueError if ranks, loggers or settings do not fit the config."""
    check_topology(config, world_size=ranks.world_size)
    check_loggers(config)
    return deepspeed_config(config, world_size=ranks.world_size)


def check_inputs(config: RunConfig) -> tuple[Inputs, HashGPTConfig]:
    """The opened inputs and the network. ValueError if they do not fit together, or not into the run folder."""
    inputs = open_inputs(config)
    inputs.check_sizes()  # on every rank: one that goes on without the others waits for them in vain
    network = inputs.network(config)
    check_resume(config, inputs.resume_compatibility(config), check_run_folder(config))
    check_disk_space(config, network)
    return inputs, network


def describe(config: RunConfig, ranks: Ranks) -> str:
    """The output of a dry run, which needs neither data nor tables, and checks them if all exist."""
    missing = missing_inputs(config)
    if missing:
        return describe_run(config, assumed_network(config), world_size=ranks.world_size, missing_inputs=missing)
    inputs = open_inputs(config)
    load = inputs.predicted_load
    return describe_run(config, inputs.network(config), world_size=ranks.world_size, predicted_load=load)


def dry_run_ranks(config: RunConfig) -> Ranks:
    """The ranks of a dry run, which needs no launcher: dry_run_world_size, or those that were started."""
    started = read_ranks(os.environ)
    return replace(started, world_size=config.dry_run_world_size or max(started.world_size, config.ep_size))
