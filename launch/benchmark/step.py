"""Time whole training steps: a recipe with its experts spread over ranks, beside the dense model of the same shape."""

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
from launch.benchmark.quantiles import Quantiles, quantiles
from train.config.deepspeed_config import check_topology, deepspeed_config
from train.config.recipe_file import read_recipe
from train.config.run_config import RunConfig
from train.data.batches import Batch, PackedSequences
from train.data.layer_tables import LayerTable
from train.data.mixture_order import MixtureOrder
from train.data.window_order import windows_of
from train.engine.engine import start_engine
from train.engine.model import build_model
from train.engine.network import network_config
from train.prefetch.loader import MicroBatches
from train.prefetch.local_plans import LocalPlanner
from train.prefetch.route_ahead import make_local_planner, plan_ahead
from train.train_step import train_step

EP_SIZE = 2  # ranks of this benchmark, which share the experts and halve the batch
LOADED_BATCHES = 300  # micro-batches that each rank loads to time its loader


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One model. Times are milliseconds of the slowest rank."""

    model: str
    step: Quantiles
    ratio: Quantiles  # step divided by the dense model's in the same repetition
    wait: Quantiles  # for batches and their dispatch plans, which a thread prepares during the step
    wait_share: float  # of the step
    tokens_per_second: float
    # Tokens that all ranks can read from the corpus and plan, with one thread each and no training at the same time;
    # None if the benchmark draws its tokens without a corpus.
    loaded_per_second: float | None


def step_config(options: Options) -> RunConfig:
    """The recipe on EP_SIZE ranks. ValueError if no dense model has the same shape."""
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
    """Seconds of every step and of its waits for batches, by model, as JSON values. Collective over all ranks."""
    options = Options(**options)
    torch.set_num_threads(options.threads)
    config = step_config(options)
    source = TokenSource(options.tokens, vocab_size=options.vocab_size, seed=options.seed)
    batches = _micro_batches(config, source, rank)
    dense = dataclasses.replace(config, sparse_layers=[], route_table=[], ep_size=1)
    engines = {"dense": _engine(dense, source), "hash": _engine(config, source)}
    planners = {model: make_local_planner(engine.module) for model, engine in engines.items()}
    loaded = {model: _loaded_per_second(planner, config, source, rank) for model, planner in planners.items()}
    models = _time_steps(engines, planners, batches, num_steps=options.warmup + options.repetitions)
    return {
        "tokens_per_step": config.global_batch_size * config.context_length,
        "models": {model: {name: s[options.warmup :] for name, s in times.items()} for model, times in models.items()},
        "loaded": loaded,
    }


def _time_steps(
    engines: dict[str, DeepSpeedEngine], planners: dict[str, LocalPlanner], batches: list[Batch], *, num_steps: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step, and of its waits for batches, by model. The models take steps in turn."""
    ahead = {
        model: plan_ahead(engine.module, _with_plans(batches, planners[model]), device=engine.device)
        for model, engine in engines.items()
    }
    seconds = {model: {"step": [], "wait": []} for model in engines}
    for _ in range(num_steps):
        for model, engine in engines.items():
            ahead[model].take_seconds_waited()  # discard those of the previous step
            seconds[model]["step"].append(_time_step(engine, islice(ahead[model], len(batches))))
            seconds[model]["wait"].append(ahead[model].take_seconds_waited())
    return seconds


def _with_plans(batches: list[Batch], planner: LocalPlanner) -> Iterator[Batch]:
    return (dataclasses.replace(batch, plans=planner.plan(batch)) for batch in cycle(batches))


def _loaded_per_second(planner: LocalPlanner, config: RunConfig, source: TokenSource, rank: int) -> float | None:
    """Tokens per second that this rank's loader reads, checks and plans."""
    if source.stream is None:
        return None
    sequences = PackedSequences([source.stream], context_length=config.context_length)
    windows = windows_of(config.context_length)
    order = MixtureOrder(sequences.parts, [Fraction(1)], seed=config.seed, part_seeds=[0], windows=windows)
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
    train_step(engine, batches)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _engine(config: RunConfig, source: TokenSource) -> DeepSpeedEngine:
    tensors = {"route_table": source.table(None, num_experts=config.num_experts, ep_size=config.ep_size)}
    load = np.zeros(config.num_experts, np.int64)  # read by reports alone
    table = LayerTable("token", num_buckets=0, num_hashes=1, tensors=tensors, predicted_load=load)
    tables = [table] * len(config.sparse_layers)
    network = network_config(config, vocab_size=source.vocab_size, end_token_id=0, layer_tables=tables)
    model = build_model(network, route_tables=[tensors] * len(tables), ep_size=config.ep_size, seed=config.seed)
    return start_engine(model, config, deepspeed_config(config, world_size=EP_SIZE))


def _micro_batches(config: RunConfig, source: TokenSource, rank: int) -> list[Batch]:
    num_sequences = config.global_batch_size // EP_SIZE
    tokens = source.draw(num_sequences, config.context_length + 1, rank=rank)
    parts = tokens.split(config.micro_batch_size)
    return [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous(), torch.ones(len(t))) for t in parts]


def step_rows(ranks: list[dict]) -> list[StepRow]:
    """ranks: the results of measure_steps by rank."""
    dense = _slowest(ranks, "dense", "step")
    rows = []
    for model in ranks[0]["models"]:
        step, wait = (_slowest(ranks, model, name) for name in ("step", "wait"))
        rate = 1e3 * ranks[0]["tokens_per_step"] / float(np.median(step))
        share = float(np.median(wait / step))
        loaded = [rank["loaded"][model] for rank in ranks]
        loaded = None if None in loaded else sum(loaded)
        rows.append(StepRow(model, quantiles(step), quantiles(step / dense), quantiles(wait), share, rate, loaded))
    return rows


def _slowest(ranks: list[dict], model: str, name: str) -> np.ndarray:
    return 1e3 * np.max([rank["models"][model][name] for rank in ranks], axis=0)


def step_table(rows: list[StepRow]) -> str:
    """The rows as a table for the screen."""
    columns = (
        f"{'model':8}{'step ms':>10}{'p10..p90':>19}{'x dense':>9}{'p10..p90':>13}"
        f"{'tokens/s':>11}{'wait ms':>10}{'share':>8}{'loads/s':>12}{'x':>6}"
    )
    note = (
        "wait: for batches and their dispatch plans, on the critical path of a step. share: of the step. loads/s:\n"
        "tokens that the loaders of all ranks read, check and plan without training. x: loads/s / tokens/s."
    )
    return "\n".join([columns, *(_line(row) for row in rows), "", note])


def _line(row: StepRow) -> str:
    loads = "" if row.loaded_per_second is None else f"{row.loaded_per_second:12,.0f}"
    loads += f"{row.loaded_per_second / row.tokens_per_second:6.0f}" if loads else ""
    step, ratio = str(row.step), str(row.ratio)
    return (
        f"{row.model:8}{row.step.median:10.2f}{step:>19}{row.ratio.median:9.2f}{ratio:>13}"
        f"{row.tokens_per_second:11,.0f}{row.wait.median:10.3f}{row.wait_share:8.2%}{loads}"
    )
