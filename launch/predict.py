"""Write a baseline's predictions beside token shards: `python launch/predict.py runs/dense data/train data/valid`."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaces launch/ on the path, whose scripts would hide packages of the same name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.shards.mixture import read_mixtures
from launch.generate import find_model
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.data.predictions import write_predictions


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="launch/predict.py", description="Write a baseline's predictions beside token shards."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="Hugging Face directory of the baseline, or the run_dir of its run"
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="+",
        help="token shards, or a mixture of them; the command writes FOLDER/predictions for each part",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="sequences per forward pass (default: 8)")
    options = parser.parse_args(argv)
    model = HashGPTForCausalLM.from_pretrained(find_model(options.model)).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for stream in read_mixtures(options.folders).streams:
        print(write_predictions(model, stream.folder, batch_size=options.batch_size))


if __name__ == "__main__":
    sys.exit(main())
