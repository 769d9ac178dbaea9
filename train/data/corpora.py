"""The corpora of a run: which sequences it trains on, in which order, and which ones it is measured on."""

from dataclasses import dataclass

from data_prep.shards.manifest import MANIFEST_NAME
from data_prep.shards.mixture import Mixture, check_same_tokenizer, joint_digest, read_mixture
from data_prep.shards.token_stream import TokenStream
from train.config.run_config import RunConfig
from train.data.batches import PackedSequences
from train.data.mixture_order import MixtureOrder
from train.data.validation_split import GROUP_SEQUENCES, Subset, digest_seed, held_out_groups


@dataclass(frozen=True)
class Corpora:
    """train, valid: sequences to learn from and to be measured on (valid may be None).
    order: in which those of train come, each part as often as its weight says.
    predictions_digest: of the predictions beside all parts of train; None where one of them has none.
    """

    train: PackedSequences
    order: MixtureOrder
    valid: PackedSequences | None
    predictions_digest: str | None


def open_corpora(config: RunConfig, mixture: Mixture, *, vocab_size: int, needs_predictions: bool) -> Corpora:
    """Open what train_data, read as `mixture`, and eval_data or eval_fraction name.

    ValueError, naming both values, where they do not fit each other, the run or its vocabulary.
    """
    train = _open_sequences(mixture, config, is_held_out=False)
    parts = zip(train.sizes, mixture.weights, _digests(mixture.streams), strict=True)
    sizes, weights, digests = (list(values) for values in zip(*parts, strict=True))
    order = MixtureOrder(sizes, weights, seed=config.seed, part_seeds=[digest_seed(digest) for digest in digests])
    if order.num_slots < config.global_batch_size:
        raise ValueError(
            f"{config.train_data} holds {order.num_slots} sequences of {config.context_length} tokens, fewer than "
            f"one batch of global_batch_size={config.global_batch_size}; use more data or a smaller batch"
        )
    valid = _open_validation(config, mixture)
    for sequences in filter(None, (train, valid)):
        _check_streams(sequences, config, vocab_size=vocab_size, needs_predictions=needs_predictions)
    predictions = train.predictions and joint_digest(zip(_digests(train.predictions), mixture.weights, strict=True))
    return Corpora(train, order, valid, predictions)


def _open_validation(config: RunConfig, mixture: Mixture) -> PackedSequences | None:
    if config.eval_data is None and config.eval_fraction == 0:
        return None
    if config.eval_data is None:
        valid = _open_sequences(mixture, config, is_held_out=True)
        lacking = f"eval_fraction={config.eval_fraction} of {config.train_data} is not one group of {GROUP_SEQUENCES} sequences"
    else:
        held_out = read_mixture(config.eval_data)
        check_same_tokenizer(mixture.streams[0], held_out.streams[0])
        valid = _open_sequences(held_out, config, is_held_out=None)
        lacking = f"{config.eval_data} holds fewer than {config.context_length + 1} tokens, not one sequence"
    if valid.num_sequences == 0:
        raise ValueError(f"{lacking}; use more data for validation")
    return valid


def _open_sequences(mixture: Mixture, config: RunConfig, *, is_held_out: bool | None) -> PackedSequences:
    """All sequences, or one side of the validation split."""
    whole = PackedSequences(
        mixture.streams,
        context_length=config.context_length,
        predictions=_open_predictions(mixture),
        end_token_id=mixture.end_token_id if config.document_mask else None,
    )
    if is_held_out is None or config.eval_fraction == 0:
        return whole
    groups = [
        held_out_groups(size, share=config.eval_fraction, corpus_digest=digest)
        for size, digest in zip(whole.sizes, _digests(mixture.streams), strict=True)
    ]
    return whole.subset(
        [Subset(n, held_out, is_held_out=is_held_out) for n, held_out in zip(whole.sizes, groups, strict=True)]
    )


def _open_predictions(mixture: Mixture) -> list[TokenStream] | None:
    """The predictions beside all parts; None where one of them has none."""
    folders = [stream.folder / "predictions" for stream in mixture.streams]
    if not all((folder / MANIFEST_NAME).is_file() for folder in folders):
        return None
    return [TokenStream(folder) for folder in folders]


def _check_streams(sequences: PackedSequences, config: RunConfig, *, vocab_size: int, needs_predictions: bool) -> None:
    for stream in [*sequences.streams, *(sequences.predictions or [])]:
        if stream.manifest.vocab_size > vocab_size:
            raise ValueError(
                f"{stream.folder} was made with {stream.manifest.vocab_size} token ids, but the model has "
                f"vocab_size={vocab_size}; make it again, or set vocab_size={stream.manifest.vocab_size}"
            )
    for stream in sequences.streams:
        if needs_predictions and not (stream.folder / "predictions" / MANIFEST_NAME).is_file():
            raise ValueError(
                f"a sparse layer routes by predicted tokens, but {stream.folder} has no predictions/; "
                "make them with `python launch/predict.py BASELINE FOLDER`"
            )
        end_token_rule = stream.manifest.rules.end_token_rule
        if config.document_mask and end_token_rule != "gpt2":
            raise ValueError(
                f"document_mask needs end_token_rule='gpt2', where end tokens end documents and nothing else, but "
                f"{stream.folder} has end_token_rule={end_token_rule!r}; tokenize it again, or leave the mask out"
            )


def _digests(streams: list[TokenStream]) -> list[str]:
    return [stream.manifest.corpus_digest for stream in streams]
