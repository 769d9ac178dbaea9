"""The options of the benchmark, with defaults that fit the device."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

ALWAYS = ("dense", "hash")  # the references of the other variants
OTHERS = (
    "deepspeed_dropless",
    "deepspeed_capacity",
    "learned_top1",
    "per_expert_loop",
    "transformers_eager",
    "transformers_grouped_mm",
)
SINGLE_PROCESS = OTHERS[2:]  # measured at ep_size 1 only
SWEEPS = ("experts", "tokens", "none")
_BY_DEVICE = {
    # One core takes about 2 seconds for the dense feed-forward of these 8192 tokens, forward and backward.
    "cpu": {"hidden_size": 512, "tokens_per_rank": 8192, "num_experts": 16, "dtype": "float32", "ep_sizes": [1, 2]},
    "cuda": {"hidden_size": 1024, "tokens_per_rank": 32768, "num_experts": 64, "dtype": "bfloat16", "ep_sizes": [1]},
}


@dataclass(frozen=True)
class Options:
    """The flags of the same names, with defaults filled in."""

    device: str
    dtype: str
    ep_sizes: list[int]
    variants: list[str]
    hidden_size: int
    intermediate_size: int
    activation: str
    num_experts: int
    tokens_per_rank: int
    context_length: int
    vocab_size: int
    sweep: str
    sweep_experts: list[int]
    sweep_tokens: list[int]
    repetitions: int
    warmup: int
    max_seconds: float
    threads: int
    seed: int
    tokens: str | None
    table: str | None
    output: str
    step: bool
    recipe: str

    @property
    def cases(self) -> list[tuple[int, int]]:
        """(num_experts, tokens_per_rank) of every case."""
        if self.sweep == "experts":
            return [(num_experts, self.tokens_per_rank) for num_experts in self.sweep_experts]
        if self.sweep == "tokens":
            return [(self.num_experts, tokens_per_rank) for tokens_per_rank in self.sweep_tokens]
        return [(self.num_experts, self.tokens_per_rank)]


def read_options(argv: list[str]) -> Options:
    """ValueError, naming both values, for options that contradict each other."""
    given = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    device = given.pop("device", "auto")
    if device == "auto":
        device = os.environ.get("DS_ACCELERATOR") or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in _BY_DEVICE:
        raise ValueError(f"device {device!r} is not one of {', '.join(_BY_DEVICE)}")
    values = {"tokens": None, "table": None, **_BY_DEVICE[device], **given}
    values.setdefault("intermediate_size", 4 * values["hidden_size"])
    for name in ("tokens", "table", "output", "recipe"):  # ranks run in the repository root
        values[name] = values[name] and str(Path(values[name]).resolve())
    values["variants"] = [*ALWAYS, *(name for name in values["variants"] if name not in ALWAYS)]
    options = Options(device=device, **values)
    _check(options)
    return options


def _check(options: Options) -> None:
    for name in ("hidden_size", "intermediate_size", "context_length", "repetitions", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)} must be at least 1")
    for num_experts, tokens_per_rank in options.cases:
        for ep_size in options.ep_sizes:
            if ep_size < 1 or num_experts % ep_size:
                raise ValueError(
                    f"{num_experts} experts cannot be split evenly over ep_size={ep_size} ranks; "
                    f"choose an ep_size that divides {num_experts}"
                )
        if tokens_per_rank < 1 or tokens_per_rank % options.context_length:
            raise ValueError(
                f"{tokens_per_rank} tokens per rank are not a whole number of sequences of "
                f"context_length={options.context_length}; choose a multiple"
            )
    if options.device == "cuda" and max(options.ep_sizes) > torch.cuda.device_count():
        raise ValueError(
            f"ep_size={max(options.ep_sizes)} needs that many GPUs; this machine has {torch.cuda.device_count()}"
        )
    if options.table and options.sweep == "experts":
        raise ValueError(
            f"--table {options.table} has a fixed number of experts, but --sweep experts varies it; omit --table"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.benchmark",
        description="Time the hash layer and its alternatives, or whole training steps (docs/benchmarks.md).",
        allow_abbrev=False,
    )
    _add_input_options(parser.add_argument_group("input and output").add_argument)
    _add_layer_options(parser.add_argument_group("layers").add_argument)
    _add_timing_options(parser.add_argument_group("timing").add_argument)
    steps = parser.add_argument_group("training steps").add_argument
    steps("--step", action="store_true", help="time whole training steps of a recipe instead of single layers")
    steps(
        "--recipe",
        default="launch/recipes/mini_corpus.yaml",
        help="recipe for --step; its hash key is token (default: %(default)s)",
    )
    return parser


def _add_input_options(add: Callable) -> None:
    add("--tokens", help="folder of token shards (default: ids drawn from Zipf's law)")
    add("--table", help="route-table file (default: balanced over experts and ranks by the tokens' counts)")
    add("--vocab_size", type=int, default=50257, help="vocabulary if --tokens is not set (default: %(default)s)")
    add("--output", default="runs/benchmark", help="folder for the results (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights, tokens and hidden states (default: %(default)s)")


def _add_layer_options(add: Callable) -> None:
    add("--variants", nargs="*", choices=(*ALWAYS, *OTHERS), default=OTHERS, help="besides dense, hash (default: all)")
    add("--hidden_size", type=int, help="width d of the hidden states")
    add("--intermediate_size", type=int, help="inner width D of an expert (default: 4 * hidden_size)")
    add("--activation", default="gelu_new", help="activation, by its name in transformers (default: %(default)s)")
    add("--num_experts", type=int, help="experts of the layer")
    add("--tokens_per_rank", type=int, help="tokens of one pass on one rank")
    add("--context_length", type=int, default=128, help="sequence length in tokens (default: %(default)s)")
    add("--ep_sizes", type=int, nargs="+", help="numbers of ranks that share the experts, measured in turn")
    add("--sweep", choices=SWEEPS, default="none", help="vary experts, tokens per rank, or nothing (default: none)")
    add("--sweep_experts", type=int, nargs="+", default=[16, 32, 64, 128], help="numbers of experts of the sweep")
    add("--sweep_tokens", type=int, nargs="+", default=[1024, 4096, 8192], help="tokens per rank of the sweep")


def _add_timing_options(add: Callable) -> None:
    add("--device", choices=("auto", *_BY_DEVICE), help="auto takes DS_ACCELERATOR, or a GPU if any (default: auto)")
    add("--dtype", choices=("float32", "bfloat16"), help="number format (default: float32 on CPUs, bfloat16 on GPUs)")
    add("--repetitions", type=int, default=10, help="timed passes of each variant (default: %(default)s)")
    add("--warmup", type=int, default=2, help="untimed passes before them (default: %(default)s)")
    add("--max_seconds", type=float, default=120, help="no repetition starts after this time (default: %(default)s)")
    add("--threads", type=int, default=1, help="CPU threads per process (default: %(default)s)")
