"""Time whole training steps: a recipe's hash layers with their experts spread over ranks, beside its dense model."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import cycle, islice

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from launch.benchmark.layers.options import Options
from launch.benchmark.layers.tokens import TokenSource
from launch.benchmark.rows import Spread, spread
from train.config.deepspeed_config import check_topology, deepspeed_config
from train.config.recipe_file import read_recipe
from train.config.run_config import RunConfig
from train.data.batches import Batch, PackedSequences
from train.data.layer_tables import LayerTable
from train.data.mixture_order import MixtureOrder
from train.engine.engine import start_engine
from train.engine.model import build_model
from train.engine.network import network_config
from train.prefetch.loader import MicroBatches
from train.prefetch.route_ahead import make_row_planner, plan_ahead
from train.prefetch.row_plans import RowPlanner
from train.train_step import train_step

EP_SIZE = 2  # ranks of this benchmark, which share the experts and halve the batch
LOADED_BATCHES = 300


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One model: milliseconds of the slowest rank per step, its ratio to the dense model's in the same repetition.

    wait: for batches and their plans, which a thread makes meanwhile; wait_share: of the step.
    loaded_per_second: tokens that all ranks can read from the corpus and plan, one thread each, when nobody trains;
    None where the benchmark draws its tokens without a corpus.
    """

    model: str
    step: Spread
    ratio: Spread
    wait: Spread
    wait_share: float
    tokens_per_second: float
    loaded_per_second: float | None


def step_config(options: Options) -> RunConfig:
    """The recipe on EP_SIZE ranks. ValueError where its dense model would have other feed-forwards."""
    recipe = read_recipe(options.recipe)
    if not recipe.sparse_layers or recipe.placement != "replace" or recipe.router != "hash":
        raise ValueError(
            f"{options.recipe} has sparse_layers={recipe.sparse_layers}, placement={recipe.placement}, "
            f"router={recipe.router}; a dense model of the same shape needs hash layers that replace feed-forwards"
        )
    config = dataclasses.replace(recipe, ep_size=EP_SIZE)
    check_topology(config, world_size=EP_SIZE)
    return config


def measure_steps(options: dict, *, rank: int) -> dict:
    """Seconds of every step, and of waiting for plans in it, by model, as JSON values. Collective over all ranks."""
    options = Options(**options)
    torch.set_num_threads(options.threads)
    config = step_config(options)
    source = TokenSource(options.tokens, vocab_size=options.vocab_size, seed=options.seed)
    dense = dataclasses.replace(config, sparse_layers=[], route_table=[], ep_size=1)
    batches = _micro_batches(config, source, rank)
    models = {"dense": _engine(dense, source), "hash": _engine(config, source)}
    planners = {name: make_row_planner(engine.module) for name, engine in models.items()}
    loaded = {name: _loaded_per_second(planner, config, source, rank) for name, planner in planners.items()}
    ahead = {
        name: plan_ahead(engine.module, _with_plans(batches, planners[name]), device=engine.device)
        for name, engine in models.items()
    }
    seconds = {name: {"step": [], "wait": []} for name in models}
    for _ in range(options.warmup + options.repetitions):
        for name, engine in models.items():
            ahead[name].take_seconds_waited()  # forget those of the step before
            seconds[name]["step"].append(_time_step(engine, islice(ahead[name], len(batches))))
            seconds[name]["wait"].append(ahead[name].take_seconds_waited())
    measured = {name: {what: s[options.warmup :] for what, s in of.items()} for name, of in seconds.items()}
    return {"tokens_per_step": config.global_batch_size * config.context_length, "models": measured, "loaded": loaded}


def _with_plans(batches: list[Batch], planner: RowPlanner) -> Iterator[Batch]:
    return (dataclasses.replace(batch, plans=planner.plan(batch)) for batch in cycle(batches))


def _loaded_per_second(planner: RowPlanner, config: RunConfig, source: TokenSource, rank: int) -> float | None:
    """Tokens of this rank's micro-batches that its loader reads, checks and plans per second."""
    if source.stream is None:
        return None
    sequences = PackedSequences([source.stream], context_length=config.context_length)
    order = MixtureOrder(sequences.sizes, [Fraction(1)], seed=config.seed, part_seeds=[0])
    loader = MicroBatches(sequences, order, planner, config.micro_batch_size, rank, EP_SIZE)
    dist.barrier()
    start = time.perf_counter()
    for number in range(LOADED_BATCHES):
        loader[number]
    num_tokens = LOADED_BATCHES * config.micro_batch_size * config.context_length
    return num_tokens / (time.perf_counter() - start)


def _time_step(engine: DeepSpeedEngine, batches: Iterable[Batch]) -> float:
    dist.barrier()
    start = time.perf_counter()
    train_step(engine, batches, _NoLog())
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


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


class _NoLog:
    """Takes the place of RunLog."""

    def add_micro_batch(self, loss, plans) -> None:
        pass


def step_rows(ranks: list[dict]) -> list[StepRow]:
    """ranks: what measure_steps returned on each."""
    dense = _slowest(ranks, "dense", "step")
    rows = []
    for model in ranks[0]["models"]:
        step, wait = (_slowest(ranks, model, what) for what in ("step", "wait"))
        rate = 1e3 * ranks[0]["tokens_per_step"] / float(np.median(step))
        share = float(np.median(wait / step))
        loaded = [rank["loaded"][model] for rank in ranks]
        loaded = None if None in loaded else sum(loaded)
        rows.append(StepRow(model, spread(step), spread(step / dense), spread(wait), share, rate, loaded))
    return rows


def _slowest(ranks: list[dict], model: str, what: str) -> np.ndarray:
    return 1e3 * np.max([rank["models"][model][what] for rank in ranks], axis=0)


def step_table(rows: list[StepRow]) -> str:
    """For the screen."""
    columns = (
        f"{'model':8}{'step ms':>10}{'p10..p90':>19}{'x dense':>9}{'p10..p90':>13}"
        f"{'tokens/s':>11}{'wait ms':>10}{'share':>8}{'loads/s':>12}{'x':>6}"
    )
    note = (
        "Wait: for batches and their plans, on the critical path of a step; share: of the step. Loads/s: tokens that\n"
        "all ranks' loaders read, check and plan when nobody trains; x: times the tokens/s of training."
    )
    return "\n".join([columns, *(_line(row) for row in rows), "", note])


def _line(row: StepRow) -> str:
    loads = "" if row.loaded_per_second is None else f"{row.loaded_per_second:12,.0f}"
    loads += f"{row.loaded_per_second / row.tokens_per_second:6.0f}" if loads else ""
    step, ratio = (f"{s.p10:.2f}..{s.p90:.2f}" for s in (row.step, row.ratio))
    return (
        f"{row.model:8}{row.step.median:10.2f}{step:>19}{row.ratio.median:9.2f}{ratio:>13}"
        f"{row.tokens_per_second:11,.0f}{row.wait.median:10.3f}{row.wait_share:8.2%}{loads}"
    )
