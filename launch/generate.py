"""Write text with a trained model: `python launch/generate.py runs/NAME --prompt "Once upon a time"`.

The model is loaded with the code of this repository; code beside the weights never runs.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaces launch/ on the path, whose scripts would hide packages of the same name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging

from data_prep.processes.command_line import user_errors_in_one_line
from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.checkpoint.folders import find_model


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    check_options(options)
    logging.disable_progress_bar()
    folder = find_model(options.model)
    prompt = Path(options.prompt_file).read_text() if options.prompt_file else options.prompt
    tokenizer = load_tokenizer(folder)
    model = HashGPTForCausalLM.from_pretrained(folder).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    print("\n---\n".join(generate(model, tokenizer, prompt, options)))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that was saved with the model, loaded without running its code. ValueError if there is none."""
    if not (folder / "tokenizer_config.json").is_file():
        raise ValueError(f"{folder} holds a model but no tokenizer; copy the tokenizer's files into it")
    # Without the configuration, AutoTokenizer would ask whether to run the modelling code in `folder`.
    config = HashGPTConfig.from_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)


def check_options(options: argparse.Namespace) -> None:
    """ValueError for numbers out of range, and for samples that could only be copies of each other."""
    for name in ("max_new_tokens", "num_beams", "num_samples"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)} must be at least 1")
    if options.temperature <= 0:
        raise ValueError(f"--temperature {options.temperature} must be above 0; --greedy selects the likeliest token")
    if not 0 < options.top_p <= 1:
        raise ValueError(f"--top_p {options.top_p} must be above 0 and at most 1")
    if not is_sampling(options) and options.num_samples > options.num_beams:
        raise ValueError(
            f"--num_samples {options.num_samples} texts cannot differ without sampling from "
            f"{options.num_beams} beams; remove --greedy or raise --num_beams"
        )


def is_sampling(options: argparse.Namespace) -> bool:
    """Whether tokens are drawn; beams search for the likeliest text and draw nothing."""
    return not options.greedy and options.num_beams == 1


def generate(
    model: HashGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, options: argparse.Namespace
) -> list[str]:
    """The prompt with each continuation. ValueError if they exceed the model's context."""
    # An empty prompt starts like a document, after the end token of another.
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [model.config.eos_token_id]
    if len(ids) + options.max_new_tokens > model.config.max_position_embeddings:
        raise ValueError(
            f"a prompt of {len(ids)} tokens and --max_new_tokens {options.max_new_tokens} exceed the model's "
            f"context of {model.config.max_position_embeddings} tokens; shorten one of them"
        )
    input_ids = torch.tensor([ids], device=model.device)
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0} if is_sampling(options) else {}
    set_seed(options.seed)
    outputs = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=options.max_new_tokens,
        do_sample=is_sampling(options),
        num_beams=options.num_beams,
        num_return_sequences=options.num_samples,
        pad_token_id=model.config.eos_token_id,
        **sampling,
    )
    return tokenizer.batch_decode(outputs, skip_special_tokens=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch/generate.py", description="Write text with a trained model.")
    add = parser.add_argument
    add("model", metavar="MODEL", help="Hugging Face directory, or the run_dir of a run")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", default="", help="text to continue (default: the start of a document)")
    prompt.add_argument("--prompt_file", metavar="FILE", help="file with the text to continue")
    add("--max_new_tokens", type=int, default=60, help="maximum number of tokens to add (default: 60)")
    add(
        "--temperature",
        type=float,
        default=0.8,
        help="sampling temperature; below 1 favours likely tokens (default: 0.8)",
    )
    add(
        "--top_p",
        type=float,
        default=0.95,
        help="sample from the likeliest tokens with this total probability (default: 0.95)",
    )
    add("--greedy", action="store_true", help="select the likeliest token instead of sampling")
    add("--num_beams", type=int, default=1, help="beams of a search for the likeliest text (default: 1)")
    add("--seed", type=int, default=0, help="seed of the sampling (default: 0)")
    add("--num_samples", type=int, default=1, help="number of texts (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
