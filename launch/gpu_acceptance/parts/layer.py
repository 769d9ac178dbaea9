"""The layer beside dense, DeepSpeed's, a loop and transformers' experts, by the benchmark of single layers."""

from dataclasses import asdict

from launch.benchmark.layers.options import Options, read_options
from launch.benchmark.measure import measure_cases
from launch.benchmark.rows import Row, make_rows
from launch.gpu_acceptance.measuring.engines import join_alone
from launch.gpu_acceptance.measuring.figures import Figure, with_spread
from launch.gpu_acceptance.measuring.setting import Setting

MOST_TIMES_DENSE = 1.15
_SMALL = "--hidden_size 16 --tokens_per_rank 256 --num_experts 4 --vocab_size 50 --context_length 32 --ep_sizes 1"


def measure(setting: Setting) -> list[Figure]:
    """On a GPU with the benchmark's defaults: bf16, d=1024, D=4096, 64 experts, 32,768 tokens."""
    join_alone()
    rows = make_rows([measure_cases(asdict(_options(setting)), ep_size=1, rank=0)])
    return [figure for row in rows for figure in _figures(row, setting)]


def _options(setting: Setting) -> Options:
    words = ["--device", setting.device, "--activation", "gelu_pytorch_tanh", "--max_seconds", "20"]
    words += setting.size(["--repetitions", "30", "--warmup", "5"], ["--repetitions", "2", "--warmup", "1"])
    return read_options([*words, *setting.size([], _SMALL.split())])


def _figures(row: Row, setting: Setting) -> list[Figure]:
    is_ours = row.variant == "hash"
    target = {"at_most": MOST_TIMES_DENSE, "skipped": setting.without_speed} if is_ours else {}
    figures = [
        with_spread(f"{row.variant}, forward and backward", row.total, "ms"),
        with_spread(f"{row.variant} / dense", row.ratio, **target),
        Figure(f"{row.variant}, peak memory", row.peak, "MiB"),
    ]
    if is_ours:
        note, waits = row.synchronizes or "", None if row.synchronizes is None else float(bool(row.synchronizes))
        figures.append(Figure("hash, waits", waits, at_most=0, skipped=setting.without_gpu, note=note))
    return figures
