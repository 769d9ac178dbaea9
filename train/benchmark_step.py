"""Time whole training steps: a recipe's hash layers with their experts spread over ranks, beside its dense model."""

import dataclasses
import threading
import time
from collections.abc import Callable

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from train.arguments import load_run_config
from train.batches import Batch
from train.benchmark_options import Options
from train.benchmark_rows import Spread, spread
from train.benchmark_tokens import TokenSource
from train.config import RunConfig
from train.deepspeed_config import check_topology, deepspeed_config
from train.engine import start_engine
from train.layer_tables import LayerTable
from train.loop import train_step
from train.model import build_model
from train.network import network_config

EP_SIZE = 2  # ranks of this benchmark, which share the experts and halve the batch


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One model: milliseconds of the slowest rank per step, its ratio to the dense model's in the same repetition.

    plan: time per step in which training waits for plans; plan_share: of the step.
    """

    model: str
    step: Spread
    ratio: Spread
    plan: Spread
    plan_share: float
    tokens_per_second: float


def step_config(options: Options) -> RunConfig:
    """The recipe on EP_SIZE ranks. ValueError where its dense model would have other feed-forwards."""
    recipe = load_run_config(["--config", options.recipe])
    if not recipe.sparse_layers or recipe.placement != "replace":
        raise ValueError(
            f"{options.recipe} has sparse_layers={recipe.sparse_layers}, placement={recipe.placement}; "
            "a dense model of the same shape needs sparse layers that replace feed-forwards"
        )
    config = dataclasses.replace(recipe, ep_size=EP_SIZE)
    check_topology(config, world_size=EP_SIZE)
    return config


def measure_steps(options: dict, *, rank: int) -> dict:
    """Seconds of every step and of making its plans, by model, as JSON values. Collective over EP_SIZE ranks."""
    options = Options(**options)
    torch.set_num_threads(options.threads)
    config = step_config(options)
    source = TokenSource(options.tokens, vocab_size=options.vocab_size, seed=options.seed)
    dense = dataclasses.replace(config, sparse_layers=[], route_table=[], ep_size=1)
    engines = {"dense": _engine(dense, source), "hash": _engine(config, source)}
    waits = {name: _time_plans(engine) for name, engine in engines.items()}
    seconds = {name: {"step": [], "plan": []} for name in engines}
    batches = _micro_batches(config, source, rank)
    for repetition in range(-options.warmup, options.repetitions):
        for name, engine in engines.items():
            dist.barrier()
            waited, start = waits[name](), time.perf_counter()
            train_step(engine, batches, _NoLog())
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            if repetition >= 0:
                seconds[name]["step"].append(time.perf_counter() - start)
                seconds[name]["plan"].append(waits[name]() - waited)
    return {"tokens_per_step": config.global_batch_size * config.context_length, "models": seconds}


def _engine(config: RunConfig, source: TokenSource) -> DeepSpeedEngine:
    tensors = {"route_table": source.table(None, num_experts=config.num_experts, ep_size=config.ep_size)}
    load = np.zeros(config.num_experts, np.int64)  # only reports read it
    table = LayerTable("token", num_buckets=0, num_hashes=1, tensors=tensors, predicted_load=load)
    tables = [table] * len(config.sparse_layers)
    network = network_config(config, vocab_size=source.vocab_size, end_token_id=0, layer_tables=tables)
    model = build_model(network, route_tables=[tensors] * len(tables), ep_size=config.ep_size, seed=config.seed)
    return start_engine(model, config, deepspeed_config(config, world_size=EP_SIZE))


def _micro_batches(config: RunConfig, source: TokenSource, rank: int) -> list[Batch]:
    rows = config.global_batch_size // EP_SIZE
    tokens = source.draw(rows, config.context_length + 1, rank=rank)
    parts = tokens.split(config.micro_batch_size)
    return [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous(), torch.ones(len(t))) for t in parts]


def _time_plans(engine: DeepSpeedEngine) -> Callable[[], float]:
    """Wrap the model's plan(); the result tells the seconds that the training thread has spent in it so far."""
    transformer = engine.module.transformer
    plan, total, training = transformer.plan, [0.0], threading.current_thread()

    def timed_plan(*arguments, **options):
        start = time.perf_counter()
        result = plan(*arguments, **options)
        if threading.current_thread() is training:  # what another thread plans meanwhile, nobody waits for
            total[0] += time.perf_counter() - start
        return result

    transformer.plan = timed_plan
    return lambda: total[0]


class _NoLog:
    """Takes the place of RunLog."""

    def add_micro_batch(self, loss, plans) -> None:
        pass


def step_rows(ranks: list[dict]) -> list[StepRow]:
    """ranks: what measure_steps returned on each."""
    dense = _slowest(ranks, "dense", "step")
    rows = []
    for model in ranks[0]["models"]:
        step, plan = (_slowest(ranks, model, what) for what in ("step", "plan"))
        rate = 1e3 * ranks[0]["tokens_per_step"] / float(np.median(step))
        share = float(np.median(plan / step))
        rows.append(StepRow(model, spread(step), spread(step / dense), spread(plan), share, rate))
    return rows


def _slowest(ranks: list[dict], model: str, what: str) -> np.ndarray:
    return 1e3 * np.max([rank["models"][model][what] for rank in ranks], axis=0)


def step_table(rows: list[StepRow]) -> str:
    """For the screen."""
    columns = (
        f"{'model':8}{'step ms':>10}{'p10..p90':>19}{'x dense':>9}{'p10..p90':>13}"
        f"{'tokens/s':>11}{'plans ms':>10}{'share':>8}"
    )
    return "\n".join([columns, *(_line(row) for row in rows)])


def _line(row: StepRow) -> str:
    step, ratio = (f"{s.p10:.2f}..{s.p90:.2f}" for s in (row.step, row.ratio))
    return (
        f"{row.model:8}{row.step.median:10.2f}{step:>19}{row.ratio.median:9.2f}{ratio:>13}"
        f"{row.tokens_per_second:11,.0f}{row.plan.median:10.3f}{row.plan_share:8.2%}"
    )
