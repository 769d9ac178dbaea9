"""The command of the benchmark: measure on ranks of its own, print tables, write CSV files and figures."""

import dataclasses
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from data_prep.storage.atomic_file import atomic_file
from launch.benchmark.layers.options import Options, read_options
from launch.benchmark.layers.tokens import TokenSource
from launch.benchmark.plots import plot_bars, plot_experts, plot_tokens
from launch.benchmark.report import tables, write_csv
from launch.benchmark.rows import Row, make_rows
from launch.benchmark.run_on_ranks import run_on_ranks

EXIT_BAD_INPUT, EXIT_FAILED = 2, 1


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 success, 1 variants disagree or a rank failed, 2 input that a user can correct."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = read_options(argv)
        os.environ["DS_ACCELERATOR"] = options.device  # read by DeepSpeed when it is imported
        about = describe(options, argv)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(about, flush=True)
    try:
        result = report_steps(options) if options.step else report_layers(options)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"\n{result}\n\nWritten to {options.output}")
    with atomic_file(_output(options, "txt")) as file:
        file.write(f"{about}\n\n{result}\n".encode())
    return 0


def report_layers(options: Options) -> str:
    """Measure single layers, write their files, and return their tables."""
    rows = measure_layers(options)
    write_csv(_output(options, "csv"), rows)
    plot = {"experts": plot_experts, "tokens": plot_tokens, "none": plot_bars}[options.sweep]
    plot(rows, _output(options, "png"))
    return tables(rows)


def measure_layers(options: Options) -> list[Row]:
    """The rows of every ep_size, each measured by ep_size processes."""
    from launch.benchmark.measure import measure_cases  # imports DeepSpeed, which takes seconds; errors come before

    rows = []
    for ep_size in options.ep_sizes:
        arguments = {"options": dataclasses.asdict(options), "ep_size": ep_size}
        rows += make_rows(
            run_on_ranks(measure_cases, ep_size, device=options.device, threads=options.threads, **arguments)
        )
    return rows


def report_steps(options: Options) -> str:
    """Measure training steps, write their CSV file, and return their table."""
    from launch.benchmark.step import EP_SIZE, measure_steps, step_rows, step_table

    arguments = {"options": dataclasses.asdict(options)}
    rows = step_rows(run_on_ranks(measure_steps, EP_SIZE, device=options.device, threads=options.threads, **arguments))
    write_csv(_output(options, "csv"), rows)
    return step_table(rows)


def describe(options: Options, argv: list[str]) -> str:
    """The head of a result: what is measured, and on which machine. ValueError if tokens or table do not fit."""
    source = TokenSource(options.tokens, vocab_size=options.vocab_size, seed=options.seed)
    if options.table:
        source.table(options.table, num_experts=options.num_experts, ep_size=max(options.ep_sizes))
    device = f"{options.threads} CPU threads per process, {platform.machine()}"
    if options.device == "cuda":
        device = torch.cuda.get_device_name()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    shape = _describe_recipe(options) if options.step else _describe_layer(options)
    return "\n".join(
        [
            f"$ python -m launch.benchmark {shlex.join(argv)}",
            f"Device:  {device}; {versions}",
            shape,
            f"Tokens:  {source.description}",
            f"Routes:  {options.table or 'balanced over experts and ranks by the counts of these tokens'}",
            f"Timing:  {options.repetitions} repetitions after {options.warmup} of warm-up, variants in rotation",
        ]
    )


def _describe_layer(options: Options) -> str:
    return (
        f"Layer:   hidden_size {options.hidden_size}, intermediate_size {options.intermediate_size}, {options.dtype}, "
        f"{options.activation}"
    )


def _describe_recipe(options: Options) -> str:
    from launch.benchmark.step import EP_SIZE, step_config

    config = step_config(options)
    return (
        f"Recipe:  {options.recipe}: {config.num_hidden_layers} blocks of hidden_size {config.hidden_size}, "
        f"{config.precision}, sparse layers {config.sparse_layers} with {config.num_experts} experts; "
        f"{EP_SIZE} ranks, {config.global_batch_size} * "
        f"{config.context_length} tokens per step"
    )


def _output(options: Options, ending: str) -> Path:
    name = "step" if options.step else {"none": "layers"}.get(options.sweep, f"by_{options.sweep}")
    return Path(options.output) / f"{name}.{ending}"
