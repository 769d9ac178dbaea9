"""Tokenize raw shards into one token shard: documents -> pieces -> ids, with an end token after every document."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.pieces import cut_documents
from data_prep.documents.raw_shards import RawShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.encoding.coverage import coverage
from data_prep.encoding.encoder import Encoder
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.safe_cuts import can_be_cut, last_cut
from data_prep.encoding.tokenizer import load_tokenizer, vocab_size
from data_prep.processes.mpi_ranks import divide
from data_prep.shards.shard_writer import ShardWriter
from data_prep.storage.atomic_file import DISK_IS_FULL
from data_prep.tokenizing.sources import Source, in_words, part_of
from data_prep.tokenizing.token_batches import batches, insert_end_tokens, with_ends
from data_prep.tokenizing.unfinished import FinishedShard, finished_shard, is_recorded, write_record


@dataclass(frozen=True)
class ShardJob:
    """One token shard to write."""

    raw_shards: tuple[RawShard, ...]  # whose documents it holds, in this order
    name: str  # of the token shard
    output: Path  # folder of the token shard
    spec_digest: str  # of the folder's FolderSpec
    end_id: int  # of the end token
    rules: DocumentRules = DocumentRules()
    max_bad_records: int = 0  # maximum number of records to skip in each raw shard
    max_bad_option: int | float = 0  # --max_bad_records as it was given
    keep_going: bool = False  # whether a raw shard that cannot be read is reported without ending other jobs

    @property
    def num_bytes(self) -> int:
        return sum(raw_shard.num_bytes for raw_shard in self.raw_shards)

    def no_skipped(self, raw_shard: RawShard) -> SkippedRecords:
        """Return an empty list of the records of a raw shard that are skipped."""
        return SkippedRecords(raw_shard.label, self.max_bad_records, option=self.max_bad_option)


@dataclass(frozen=True)
class FailedShard:
    """A token shard that was not written, and all that is wrong with its raw shards."""

    name: str
    problems: tuple[str, ...]


class ShardTokenizer:
    """Everything that tokenizing a shard needs from the tokenizer; one instance serves many shards."""

    def __init__(self, folder: Path, *, backend: str, num_threads: int):
        tokenizer = load_tokenizer(folder)
        self.unknown_id = coverage(tokenizer).unknown_id
        self.encoder: Encoder = make_encoder(folder, backend, num_threads=num_threads)
        self.vocab_size = vocab_size(tokenizer)
        self.last_cut = last_cut if can_be_cut(tokenizer) else None


def share_jobs(jobs: list[ShardJob], num_shares: int) -> list[list[ShardJob]]:
    """Divide jobs by the sizes of their raw shards; one with a record is only checked, about 50 times as fast."""
    sizes = [job.num_bytes // (50 if is_recorded(job.output, job.name) else 1) for job in jobs]
    return [[jobs[number] for number in share] for share in divide(sizes, num_shares)]


def finish_shard(
    job: ShardJob, tokenizer: ShardTokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> FinishedShard | FailedShard:
    """Return the token shard of `job`: the one that an interrupted run finished, or a new one, which is recorded."""
    parts = [part_of(raw_shard) for raw_shard in job.raw_shards]
    finished = finished_shard(job.output, job.name, spec_digest=job.spec_digest, parts=parts)
    if finished is not None:
        on_read(job.num_bytes)
        return finished
    try:
        finished = tokenize_shard(job, tokenizer, on_read=on_read, on_tokens=on_tokens)
    except (ValueError, OSError) as error:
        if not job.keep_going or _ends_all_jobs(error):
            raise
        problems = find_problems(job, on_read=lambda num_bytes: on_read(0))
        return FailedShard(job.name, problems or (str(error),))
    write_record(job.output, finished, spec_digest=job.spec_digest)
    return finished


def tokenize_shard(
    job: ShardJob, tokenizer: ShardTokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> FinishedShard:
    """Write the token shard of `job`; an error leaves none behind.

    on_read, on_tokens: called with the number of bytes read and of tokens written since the last call.
    Memory holds one batch of pieces, and a whole document only if the tokenizer would give its pieces other ids.
    """
    with ShardWriter(job.output, job.name, vocab_size=tokenizer.vocab_size) as writer:
        sources = tuple(
            _write_source(raw_shard, job, tokenizer, writer, on_read=on_read, on_tokens=on_tokens)
            for raw_shard in job.raw_shards
        )
    return FinishedShard(writer.shard, sources)


def find_problems(job: ShardJob, *, on_read: Callable[[int], None]) -> tuple[str, ...]:
    """Read all raw shards of a job without tokenizing them; return a sentence for each that cannot be read."""
    problems = []
    for raw_shard in job.raw_shards:
        try:
            for _ in raw_shard.read_parts(job.rules, job.no_skipped(raw_shard), on_read):
                pass
        except (ValueError, OSError) as error:
            if _ends_all_jobs(error):
                raise
            problems.append(str(error))
    return tuple(problems)


def _ends_all_jobs(error: Exception) -> bool:
    """Whether an error is one of the output, or the end of the command, which no other job would escape."""
    return isinstance(error, InterruptedError) or getattr(error, "errno", None) in DISK_IS_FULL


def _write_source(
    raw_shard: RawShard, job: ShardJob, tokenizer: ShardTokenizer, writer: ShardWriter, *, on_read, on_tokens
) -> Source:
    """Append the documents of a raw shard; ValueError if it changed while it was read."""
    part, digest = part_of(raw_shard), xxhash.xxh3_128()
    skipped = job.no_skipped(raw_shard)
    parts = _CountedParts(raw_shard.read_parts(job.rules, skipped, on_read, digest=digest))
    pieces = with_ends(cut_documents(parts, tokenizer.last_cut), end_token_rule=job.rules.end_token_rule)
    num_documents = num_tokens = num_unknown = 0
    for texts, has_end, ends_document in batches(pieces):
        ids, lengths = tokenizer.encoder.encode(texts)
        if tokenizer.unknown_id is not None:
            num_unknown += np.count_nonzero(ids == tokenizer.unknown_id)
        ids, text_ends = insert_end_tokens(ids, lengths, has_end, job.end_id)
        writer.write(ids, document_ends=text_ends[ends_document])
        num_documents, num_tokens = num_documents + int(ends_document.sum()), num_tokens + len(ids)
        on_tokens(len(ids))
    if part_of(raw_shard) != part:
        raise ValueError(
            f"{raw_shard.label} changed while it was read: it had {in_words(part.identity)}, now it has "
            f"{in_words(part_of(raw_shard).identity)}; "
            "wait until it is complete, and start again"
        )
    return Source(
        shard=job.name,
        part=part,
        xxh3=digest.hexdigest(),
        num_documents=num_documents,
        num_empty=parts.num_documents - num_documents,
        num_tokens=num_tokens,
        num_unknown=int(num_unknown),
        skipped=tuple(skipped.records),
    )


class _CountedParts:
    """Parts of documents, and the number of documents that they are, those without text included."""

    def __init__(self, parts: Parts):
        self._parts, self.num_documents = parts, 0

    def __iter__(self) -> Parts:
        is_open = False
        for text, ends_document in self._parts:
            yield text, ends_document
            self.num_documents += ends_document
            is_open = not ends_document and (is_open or bool(text))
        self.num_documents += is_open
