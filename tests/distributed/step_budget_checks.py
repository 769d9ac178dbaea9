"""Code that the test of a step's budget runs on every rank: what one step of a run waits for, sends and keeps."""

from dataclasses import replace

import deepspeed.comm as dist

from launch.gpu_acceptance.measuring.step_observer import Spent, StepObserver
from tests.distributed.engine_checks import start
from tests.distributed.training import batch, micro_batches
from train.faults.supervision import Supervision
from train.prefetch.route_ahead import PlanCompleter, make_local_planner
from train.processes.stop_request import StopRequest
from train.train_step import train_step


def spend(configs: list[dict], folder: str) -> list[dict]:
    """Train two steps of each config, and report on the second: the fields of Spent."""
    return [vars(_spend(StepObserver(*start(**fields, run_dir=folder)), folder)) for fields in configs]


def _spend(observer: StepObserver, folder: str) -> Spent:
    engine, config = observer.engine, observer.config
    planner, completer = make_local_planner(engine.module), PlanCompleter(engine.module)
    watch = Supervision(engine, config, None, StopRequest(folder, looks_for_file=False))
    for step in range(2):
        parts = micro_batches(batch(step), config, dist.get_rank(), dist.get_world_size())
        planned = [replace(part, plans=completer.complete(planner.plan(part))) for part in parts]
        observer.spent = Spent()
        train_step(observer, planned, watch=watch)
    return observer.spent
