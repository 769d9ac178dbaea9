"""Write a baseline's guesses beside token shards: `python launch/predict.py runs/dense data/train data/valid`."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaced, not inserted before: scripts in launch/ would hide packages of the same name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.shards.mixture import read_mixtures
from launch.generate import find_model
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.data.predictions import write_predictions


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="launch/predict.py", description=__doc__)
    parser.add_argument(
        "model", metavar="MODEL", help="Hugging Face directory of the baseline, or the folder of its run"
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="+",
        help="token shards; FOLDER/predictions is written, for a mixture in each part",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="windows per forward pass (default: 8)")
    options = parser.parse_args(argv)
    model = HashGPTForCausalLM.from_pretrained(find_model(options.model)).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for stream in read_mixtures(options.folders).streams:
        print(write_predictions(model, stream.folder, batch_size=options.batch_size))


if __name__ == "__main__":
    sys.exit(main())
