"""The corpora of a run: the sequences for training, their order, and the sequences for validation."""

from dataclasses import dataclass

from data_prep.shards.held_out_size import GROUP_SEQUENCES
from data_prep.shards.mixture import Mixture, check_same_tokenizer, joint_digest, read_mixture
from data_prep.shards.token_stream import TokenStream
from train.config.run_config import RunConfig
from train.data.batches import PackedSequences
from train.data.mixture_order import MixtureOrder
from train.data.predictions import PREDICTIONS_FOLDER, has_predictions
from train.data.validation_split import Subset, digest_seed, held_out_groups


@dataclass(frozen=True)
class Corpora:
    """train: sequences to train on.
    order: in which training reads them, each part for its epochs.
    validation: sequences to validate on; None without validation.
    predictions_digest: of the predictions beside all parts of train; None if a part has none.
    """

    train: PackedSequences
    order: MixtureOrder
    validation: PackedSequences | None
    predictions_digest: str | None


def open_corpora(config: RunConfig, mixture: Mixture, *, vocab_size: int, needs_predictions: bool) -> Corpora:
    """Open the sequences of train_data, read as `mixture`, and those of eval_data or eval_fraction.

    If they do not fit each other, the run or its vocabulary, ValueError names both values.
    """
    train = _open_sequences(mixture, config, is_held_out=False)
    part_seeds = [digest_seed(digest) for digest in _digests(mixture.streams)]
    order = MixtureOrder(train.parts, mixture.epochs, seed=config.seed, part_seeds=part_seeds)
    if order.num_slots < config.global_batch_size:
        raise ValueError(
            f"{config.train_data} holds {order.num_slots} sequences of {config.context_length} tokens, fewer than "
            f"one batch of global_batch_size={config.global_batch_size}; use more data or a smaller batch"
        )
    validation = _open_validation(config, mixture)
    for sequences in filter(None, (train, validation)):
        _check_streams(sequences, config, vocab_size=vocab_size, needs_predictions=needs_predictions)
    predictions = train.predictions and joint_digest(zip(_digests(train.predictions), mixture.epochs, strict=True))
    return Corpora(train, order, validation, predictions)


def _open_validation(config: RunConfig, mixture: Mixture) -> PackedSequences | None:
    if config.eval_data is None and config.eval_fraction == 0:
        return None
    if config.eval_data is None:
        validation = _open_sequences(mixture, config, is_held_out=True)
        fraction = f"eval_fraction={config.eval_fraction} of {config.train_data}"
        lacking = f"{fraction} is not one group of {GROUP_SEQUENCES} sequences"
    else:
        evaluated = read_mixture(config.eval_data)
        check_same_tokenizer(mixture.streams[0], evaluated.streams[0])
        validation = _open_sequences(evaluated, config, is_held_out=None)
        lacking = f"{config.eval_data} holds fewer than {config.context_length + 1} tokens, not one sequence"
    if validation.num_sequences == 0:
        raise ValueError(f"{lacking}; use more data for validation")
    return validation


def _open_sequences(mixture: Mixture, config: RunConfig, *, is_held_out: bool | None) -> PackedSequences:
    """Open one side of the validation split; all sequences if is_held_out is None."""
    whole = PackedSequences(
        mixture.streams,
        context_length=config.context_length,
        predictions=_open_predictions(mixture),
        end_token_id=mixture.end_token_id if config.document_mask else None,
    )
    if is_held_out is None or config.eval_fraction == 0:
        return whole
    subsets = []
    for part, digest in zip(whole.parts, _digests(mixture.streams), strict=True):
        groups = held_out_groups(part.num_sequences, fraction=config.eval_fraction, corpus_digest=digest)
        subsets.append(Subset(part.num_sequences, groups, is_held_out=is_held_out))
    return whole.subset(subsets)


def _open_predictions(mixture: Mixture) -> list[TokenStream] | None:
    """Open the predictions beside all parts; None if a part has none."""
    if not all(map(has_predictions, mixture.streams)):
        return None
    return [TokenStream(stream.folder / PREDICTIONS_FOLDER) for stream in mixture.streams]


def _check_streams(sequences: PackedSequences, config: RunConfig, *, vocab_size: int, needs_predictions: bool) -> None:
    for stream in [*sequences.streams, *(sequences.predictions or [])]:
        if stream.manifest.vocab_size > vocab_size:
            raise ValueError(
                f"{stream.folder} was made with {stream.manifest.vocab_size} token ids, but the model has "
                f"vocab_size={vocab_size}; make it again, or set vocab_size={stream.manifest.vocab_size}"
            )
    for stream in sequences.streams:
        if needs_predictions and not has_predictions(stream):
            raise ValueError(
                f"a sparse layer routes by predicted tokens, but {stream.folder} has no {PREDICTIONS_FOLDER}/; "
                "make them with `python launch/predict.py BASELINE FOLDER`"
            )
        end_token_rule = stream.manifest.rules.end_token_rule
        if config.document_mask and end_token_rule != "gpt2":
            raise ValueError(
                f"document_mask needs end_token_rule='gpt2', with end tokens only at the ends of documents, but "
                f"{stream.folder} has end_token_rule={end_token_rule!r}; tokenize it again, or train without the mask"
            )


def _digests(streams: list[TokenStream]) -> list[str]:
    return [stream.manifest.corpus_digest for stream in streams]
