"""What a training run will validate on: the held-out parts of a corpus, or a split that eval_fraction makes."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.shards.held_out_size import GROUP_SEQUENCES, num_held_out_groups
from data_prep.shards.mixture import read_mixture
from data_prep.shards.sequences import Sequences


@dataclass(frozen=True)
class Validation:
    """The validation data of a prepared corpus."""

    data: Path | None  # folder or mixture of held-out parts; None: a split of the training data
    sentence: str  # for the reader
    options: dict[str, object]  # of launch/train.py; none without validation data


def describe_validation(output: Path, data: Path | None, *, eval_fraction: float, context_length: int) -> Validation:
    """Return the validation data of the corpus in `output`; `data` holds its held-out parts, if there are any."""
    if data is not None:
        num_tokens = sum(stream.num_tokens for stream in read_mixture(data).streams)
        sentence = f"{num_tokens:,} tokens of text that is not trained on, in {data}"
        return Validation(data, sentence, {"eval_data": data})
    groups = tokens = total = 0
    for stream in read_mixture(output).streams:
        num_sequences = Sequences(stream, context_length=context_length).num_sequences
        found = num_held_out_groups(num_sequences, fraction=eval_fraction)
        groups += found
        tokens += found * GROUP_SEQUENCES * context_length
        total += stream.num_tokens
    if not groups:
        needed = f"give held-out text with --valid, or an --eval_fraction above {eval_fraction}"
        sentence = f"none: {eval_fraction} of {total:,} tokens is no group of {GROUP_SEQUENCES} sequences; {needed}"
        return Validation(None, sentence, {})
    sentence = (
        f"eval_fraction {eval_fraction} holds {groups:,} groups of {GROUP_SEQUENCES} sequences of {context_length:,} "
        f"tokens out of training, at most {tokens:,} of {total:,} tokens; the corpus alone decides which"
    )
    return Validation(None, sentence, {"eval_data": "none", "eval_fraction": eval_fraction})
