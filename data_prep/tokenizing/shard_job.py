"""Tokenize one raw shard into one token shard: documents -> pieces -> ids, with an end token after every document."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.pieces import cut_documents
from data_prep.documents.raw_shards import RawShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.encoding.encoder import Encoder
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.safe_cuts import can_be_cut, last_cut
from data_prep.encoding.tokenizer import load_tokenizer, vocab_size
from data_prep.processes.mpi_ranks import divide
from data_prep.shards.manifest import Shard
from data_prep.shards.shard_writer import ShardWriter
from data_prep.tokenizing.unfinished import finished_shard, is_recorded, write_record

BATCH_CHARACTERS = 2**20  # about 250,000 tokens * 100 bytes while they are encoded = 25 MB


@dataclass(frozen=True)
class ShardJob:
    """One raw shard to tokenize."""

    raw_shard: RawShard
    name: str  # of the token shard
    output: Path  # folder of the token shard
    spec_digest: str  # of the folder's FolderSpec
    end_id: int  # of the end token
    rules: DocumentRules = DocumentRules()
    max_bad_records: int = 0  # maximum number of records to skip


class ShardTokenizer:
    """Everything that tokenizing a shard needs from the tokenizer; one instance serves many shards."""

    def __init__(self, folder: Path, *, backend: str, num_threads: int):
        tokenizer = load_tokenizer(folder)
        self.encoder: Encoder = make_encoder(folder, backend, num_threads=num_threads)
        self.vocab_size = vocab_size(tokenizer)
        self.last_cut = last_cut if can_be_cut(tokenizer) else None


def share_jobs(jobs: list[ShardJob], num_shares: int) -> list[list[ShardJob]]:
    """Divide jobs by the sizes of their raw shards; one with a record is only checked, about 50 times as fast."""
    sizes = [job.raw_shard.num_bytes // (50 if is_recorded(job.output, job.name) else 1) for job in jobs]
    return [[jobs[number] for number in share] for share in divide(sizes, num_shares)]


def finish_shard(
    job: ShardJob, tokenizer: ShardTokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> Shard:
    """Return the token shard of `job`: the one that an interrupted run finished, or a new one, which is recorded."""
    identity = job.raw_shard.identity()  # before it is read
    shard = finished_shard(job.output, job.name, spec_digest=job.spec_digest, raw_shard=identity)
    if shard is not None:
        on_read(job.raw_shard.num_bytes)
        return shard
    shard = tokenize_shard(job, tokenizer, on_read=on_read, on_tokens=on_tokens)
    write_record(job.output, shard, spec_digest=job.spec_digest, raw_shard=identity)
    return shard


def tokenize_shard(
    job: ShardJob, tokenizer: ShardTokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> Shard:
    """Write the token shard of `job`; an error leaves none behind.

    on_read, on_tokens: called with the number of bytes read and of tokens written since the last call.
    Memory holds one batch of pieces, and a whole document only if the tokenizer would give its pieces other ids.
    """
    skipped = SkippedRecords(job.raw_shard.label, job.max_bad_records)
    parts = job.raw_shard.read_parts(job.rules, skipped, on_read)
    pieces = with_ends(cut_documents(parts, tokenizer.last_cut), end_token_rule=job.rules.end_token_rule)
    options = {"source": job.raw_shard.source, "vocab_size": tokenizer.vocab_size}
    with ShardWriter(job.output, job.name, skipped=skipped.records, **options) as writer:
        for texts, has_end, ends_document in batches(pieces):
            ids, lengths = tokenizer.encoder.encode(texts)
            ids, text_ends = insert_end_tokens(ids, lengths, has_end, job.end_id)
            writer.write(ids, document_ends=text_ends[ends_document])
            on_tokens(len(ids))
    return writer.shard


def with_ends(pieces: Parts, *, end_token_rule: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield (text, whether the end token follows it, whether it ends its document); with "fairseq", texts are lines."""
    for text, ends_document in pieces:
        *lines, last = text.split("\n") if end_token_rule == "fairseq" else [text]
        for line in lines:
            yield line, True, False
        yield last, ends_document, ends_document


def batches(pieces: Iterator[tuple[str, bool, bool]]) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Group texts into batches of BATCH_CHARACTERS; yield (texts, has_end, ends_document), one value per text each."""
    batch: list[tuple[str, bool, bool]] = []
    num_characters = 0
    for piece in pieces:
        batch.append(piece)
        num_characters += len(piece[0]) + 1  # an empty line counts too
        if num_characters >= BATCH_CHARACTERS:
            yield _columns(batch)
            batch, num_characters = [], 0
    if batch:
        yield _columns(batch)


def insert_end_tokens(
    ids: np.ndarray, lengths: np.ndarray, has_end: np.ndarray, end_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Insert the end token after each text that has one; return all ids, and the end of each text in them [texts].

    ids: [sum of lengths], of all texts, concatenated. lengths, has_end: [texts].
    """
    return np.insert(ids, np.cumsum(lengths)[has_end], end_id), np.cumsum(lengths + has_end)


def _columns(batch: list[tuple[str, bool, bool]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    texts, has_end, ends_document = zip(*batch, strict=True)
    return list(texts), np.array(has_end), np.array(ends_document)
