"""The whole project on a small text: `python launch/quickstart.py` prints and runs each command, then a summary.

Options are passed to launch/train.py, e.g. `--max_steps 50`. data/quickstart and runs/quickstart are rebuilt.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # Replaces launch/ on the path, where `import train` would be launch/train.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from data_prep.counts.counts_file import read_counts
from train.checkpoint.folders import find_model
from train.metrics.metrics_file import read_points
from train.metrics.records import ValidationRecord
from train.processes.project_root import ROOT
from train.processes.ranks import free_port

DATA, RUN = "data/quickstart", "runs/quickstart"
# Two processes of one CPU thread each, which every machine has. Set DS_ACCELERATOR=cuda to use two GPUs.
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or that of the command that failed."""
    train_options = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(train_options):
        print(__doc__)
        return 0
    start = time.perf_counter()
    for folder in (DATA, RUN):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    status = run_commands(commands(train_options))
    if status == 0:
        print(summary(seconds=time.perf_counter() - start))
    return status


def commands(train_options: list[str]) -> dict[str, str]:
    """The purpose of each step, and the command that a newcomer would type for it."""
    tokenize = f"python -m data_prep.tokenize_shards --tokenizer {DATA}/tokenizer"
    launcher = f"deepspeed --quiet --num_gpus 2 --master_port {free_port()}"
    train = f"{launcher} launch/train.py --config launch/recipes/quickstart.yaml"
    return {
        "Write a small corpus": f"python -m data_prep.embedded_corpus --output {DATA}/text",
        "Train a tokenizer": "python -m data_prep.train_tokenizer"
        f" --input {DATA}/text/train --vocab_size 2048 --output {DATA}/tokenizer",
        "Tokenize the training text": f"{tokenize} --input {DATA}/text/train --output {DATA}/train",
        "Tokenize the validation text": f"{tokenize} --input {DATA}/text/valid --output {DATA}/valid",
        "Count the tokens": f"python -m data_prep.count_tokens {DATA}/train",
        "Count the validation tokens": f"python -m data_prep.count_tokens {DATA}/valid",
        "Balance the tokens over 8 experts": f"python -m data_prep.build_table --counts {DATA}/train/counts.safetensors"
        f" --num_experts 8 --method balanced --ep_size 2 --output {DATA}/balanced_8.safetensors",
        "Train on two ranks, four experts each": shlex.join([*shlex.split(train), *train_options]),
        "Write some text": f'python launch/generate.py {RUN} --prompt "The following example"',
    }


def run_commands(steps: dict[str, str]) -> int:
    """Run the commands in the repository root, and return 0 or the exit status of the first that fails."""
    environment = {**ENVIRONMENT, **os.environ}
    settings = " ".join(f"{name}={environment[name]}" for name in ENVIRONMENT)
    print(f"Commands run in {ROOT} with\n$ export {settings}", flush=True)
    for number, (purpose, command) in enumerate(steps.items(), start=1):
        print(f"\n[{number}/{len(steps)}] {purpose}\n$ {command}", flush=True)
        status = subprocess.run(executable(command), cwd=ROOT, env=environment).returncode
        if status != 0:
            print(f"error: this command failed with exit status {status}:\n{command}", file=sys.stderr)
            return status
    return 0


def executable(command: str) -> list[str]:
    """The words of the command, with this interpreter or a program installed beside it as the first."""
    program, *words = shlex.split(command)
    return [sys.executable if program == "python" else str(Path(sys.executable).with_name(program)), *words]


def summary(*, seconds: float) -> str:
    """The perplexity of the run, and where its files are."""
    perplexity = read_points(ROOT / RUN / "metrics.jsonl", ValidationRecord)[-1].perplexity or float("inf")
    counts = [read_counts(ROOT / DATA / part / "counts.safetensors").counts for part in ("train", "valid")]
    unigram = unigram_perplexity(*counts)
    return (
        f"\nValidation perplexity:   {perplexity:.1f} (token frequencies alone give {unigram:.1f})"
        f"\nModel for transformers:  {find_model(ROOT / RUN).relative_to(ROOT)}"
        f"\nPlots:                   {RUN}/plots"
        f"\nTotal time:              {seconds:.0f} seconds"
    )


def unigram_perplexity(train_counts: np.ndarray, eval_counts: np.ndarray) -> float:
    """Perplexity of the validation tokens under their frequencies in the training tokens, with add-one smoothing."""
    probability = (train_counts + 1) / (train_counts.sum() + len(train_counts))
    return float(np.exp(-(eval_counts @ np.log(probability)) / eval_counts.sum()))


if __name__ == "__main__":
    sys.exit(main())
