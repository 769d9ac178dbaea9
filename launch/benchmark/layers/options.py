"""The options of a benchmark: their flags, and defaults that fit the device."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch

ALWAYS = ("dense", "hash")  # what the others are compared with
OTHERS = (
    "deepspeed_dropless",
    "deepspeed_capacity",
    "learned_top1",
    "per_expert_loop",
    "transformers_eager",
    "transformers_grouped_mm",
)
SINGLE_PROCESS = OTHERS[2:]  # these are measured at ep_size 1 only
SWEEPS = ("experts", "tokens", "none")
_BY_DEVICE = {
    # One core does the dense feed-forward of these 8192 tokens in about 2 seconds, forward and backward.
    "cpu": {"hidden_size": 512, "tokens_per_rank": 8192, "num_experts": 16, "dtype": "float32", "ep_sizes": [1, 2]},
    "cuda": {"hidden_size": 1024, "tokens_per_rank": 32768, "num_experts": 64, "dtype": "bfloat16", "ep_sizes": [1]},
}


@dataclass(frozen=True)
class Options:
    """One benchmark; every field is the flag of its name, with its default filled in."""

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
        """(num_experts, tokens_per_rank) of every point that is measured."""
        if self.sweep == "experts":
            return [(num_experts, self.tokens_per_rank) for num_experts in self.sweep_experts]
        if self.sweep == "tokens":
            return [(self.num_experts, tokens_per_rank) for tokens_per_rank in self.sweep_tokens]
        return [(self.num_experts, self.tokens_per_rank)]


def read_options(argv: list[str]) -> Options:
    """Raises ValueError, naming both values, for options that contradict each other."""
    given = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    device = given.pop("device", "auto")
    if device == "auto":
        device = os.environ.get("DS_ACCELERATOR") or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in _BY_DEVICE:
        raise ValueError(f"device {device!r} is not one of {', '.join(_BY_DEVICE)}")
    values = {"tokens": None, "table": None, **_BY_DEVICE[device], **given}
    values.setdefault("intermediate_size", 4 * values["hidden_size"])
    for name in ("tokens", "table", "output", "recipe"):  # the ranks run in the repository root
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
                f"{tokens_per_rank} tokens per rank are not whole sequences of context_length={options.context_length}"
            )
    if options.device == "cuda" and max(options.ep_sizes) > torch.cuda.device_count():
        raise ValueError(f"ep_size={max(options.ep_sizes)} needs as many GPUs, here are {torch.cuda.device_count()}")
    if options.table and options.sweep == "experts":
        raise ValueError(f"--table {options.table} has one number of experts, but --sweep experts varies it; omit it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launch.benchmark", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--tokens", help="folder of token shards; without it ids are drawn from Zipf's law")
    add("--table", help="route-table file; without it the tokens' counts are balanced over experts and ranks")
    add("--output", default="runs/benchmark", help="folder for the CSV and PNG files (default: %(default)s)")
    add("--device", choices=("auto", *_BY_DEVICE), help="auto: DS_ACCELERATOR, or a GPU where there is one")
    add("--dtype", choices=("float32", "bfloat16"), help="default: float32 on the CPU, bfloat16 on GPUs")
    add("--ep_sizes", type=int, nargs="+", help="ranks that share the experts; each is a run of as many processes")
    add("--variants", nargs="*", choices=(*ALWAYS, *OTHERS), default=OTHERS, help="besides dense and hash")
    add("--hidden_size", type=int, help="width d of the hidden states")
    add("--intermediate_size", type=int, help="width D inside an expert (default: 4 * width)")
    add("--activation", default="gelu_new", help="by its transformers name, of all variants (default: %(default)s)")
    add("--num_experts", type=int)
    add("--tokens_per_rank", type=int)
    add("--context_length", type=int, default=128, help="tokens per sequence (default: %(default)s)")
    add("--vocab_size", type=int, default=50257, help="without --tokens (default: %(default)s)")
    add("--sweep", choices=SWEEPS, default="none", help="vary the experts, the tokens per rank, or nothing")
    add("--sweep_experts", type=int, nargs="+", default=[16, 32, 64, 128])
    add("--sweep_tokens", type=int, nargs="+", default=[1024, 4096, 8192])
    add("--repetitions", type=int, default=10, help="timed passes of each variant (default: %(default)s)")
    add("--warmup", type=int, default=2, help="passes before them (default: %(default)s)")
    add("--max_seconds", type=float, default=120, help="a slower variant repeats less often (default: %(default)s)")
    add("--threads", type=int, default=1, help="of each process on the CPU (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--step", action="store_true", help="whole training steps of a recipe instead of single layers")
    add("--recipe", default="launch/recipes/mini_corpus.yaml", help="of --step, token keys (default: %(default)s)")
    return parser
