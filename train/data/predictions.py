"""Predictions of a baseline model beside token shards, for hashes of the predicted next token (section 3.1)."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_prep.counts.hash_keys import document_positions
from data_prep.shards.manifest import MANIFEST_NAME, make_manifest, write_manifest
from data_prep.shards.shard_writer import ShardWriter
from data_prep.shards.token_stream import TokenStream
from models.modeling_hash_gpt import HashGPTForCausalLM

PREDICTIONS_FOLDER = "predictions"


def write_predictions(model: HashGPTForCausalLM, folder: Path, *, batch_size: int = 8) -> Path:
    """Write FOLDER/predictions, token shards whose token n is the model's arg-max guess of token n + 1 of FOLDER.

    Each guess reads the tokens up to n of its window of max_position_embeddings tokens, or only those of its document
    if the model was trained with document_mask. ValueError if the model's vocabulary is smaller than that of FOLDER.
    """
    stream = TokenStream(folder)
    _check_vocabulary(model, stream)
    output = folder / PREDICTIONS_FOLDER
    output.mkdir(exist_ok=True)
    (output / MANIFEST_NAME).unlink(missing_ok=True)  # the folder is unfinished until the new manifest is written
    with ShardWriter(output, "shard_00000", vocab_size=stream.manifest.vocab_size) as writer:
        for window in _predict(model, stream, batch_size=batch_size):
            writer.add_document(window)
    manifest = stream.manifest
    description = make_manifest(
        [writer.shard],
        tokenizer_digest=manifest.tokenizer_digest,
        vocab_size=manifest.vocab_size,
        end_token=manifest.end_token,
        end_token_id=manifest.end_token_id,
    )
    write_manifest(output, description)
    return output


def has_predictions(stream: TokenStream) -> bool:
    """Whether finished predictions stand beside a stream."""
    return (stream.folder / PREDICTIONS_FOLDER / MANIFEST_NAME).is_file()


@torch.no_grad()
def _predict(model: HashGPTForCausalLM, stream: TokenStream, *, batch_size: int):
    """Yield the guesses of each window in order, int64 [window]; the last one may be shorter."""
    length = model.config.max_position_embeddings
    starts = range(0, stream.num_tokens, length)
    full = [start for start in starts if start + length <= stream.num_tokens]
    batches = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    batches += [[start] for start in starts if start + length > stream.num_tokens]
    with tqdm(total=stream.num_tokens, unit="token", unit_scale=True, desc="predicting") as bar:
        for batch in batches:
            windows = [stream.read(start, min(length, stream.num_tokens - start)) for start in batch]
            tokens = torch.from_numpy(np.stack(windows)).to(model.device)
            logits = model(tokens, position_ids=_positions(model, stream, tokens), use_cache=False).logits
            guesses = logits[..., : stream.manifest.vocab_size].argmax(-1)
            yield from guesses.cpu().numpy()
            bar.update(tokens.numel())


def _positions(model: HashGPTForCausalLM, stream: TokenStream, tokens: torch.Tensor) -> torch.Tensor | None:
    """Return the position_ids of training, as train/data/batches.py makes them."""
    if not model.config.document_mask:
        return None
    positions = document_positions(tokens.cpu().numpy(), end_token_id=stream.manifest.end_token_id)
    return torch.from_numpy(positions).to(tokens.device)


def _check_vocabulary(model: HashGPTForCausalLM, stream: TokenStream) -> None:
    if model.config.vocab_size < stream.manifest.vocab_size:
        raise ValueError(
            f"the model knows {model.config.vocab_size} tokens but {stream.folder} was made with "
            f"{stream.manifest.vocab_size}; use a baseline trained on these token shards"
        )
