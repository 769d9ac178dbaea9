"""Tokenize one raw shard into one token shard: documents -> batches -> ids, each document ended by the end token."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.manifest import Shard
from data_prep.mpi_ranks import divide
from data_prep.readers import read_documents
from data_prep.token_shards import ShardWriter
from data_prep.tokenizer import encode_documents, end_token_id, vocab_size
from data_prep.unfinished import finished_shard, identify, is_recorded, write_record

BATCH_CHARACTERS = 2**20  # about 250,000 tokens; 100 bytes each while they are encoded = 25 MB


@dataclass(frozen=True)
class ShardJob:
    """One raw shard to tokenize."""

    path: Path  # the raw shard
    name: str  # of the token shard
    output: Path  # folder of the token shard
    plan_digest: str  # of the plan that the folder follows
    text_field: str = "text"
    document_rule: str = "auto"


def share_jobs(jobs: list[ShardJob], num_shares: int) -> list[list[ShardJob]]:
    """Divide jobs by the sizes of their raw shards; those with a record are only compared, say 50 times as fast."""
    sizes = [job.path.stat().st_size // (50 if is_recorded(job.output, job.name) else 1) for job in jobs]
    return [[jobs[number] for number in share] for share in divide(sizes, num_shares)]


def finish_shard(
    job: ShardJob, tokenizer: Tokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> Shard:
    """Return the token shard of `job`: the one that an interrupted run finished, or else a new one and its record."""
    raw_shard = identify(job.path)
    shard = finished_shard(job.output, job.name, plan_digest=job.plan_digest, raw_shard=raw_shard)
    if shard is not None:
        on_read(raw_shard["num_bytes"])
        return shard
    shard = tokenize_shard(job, tokenizer, on_read=on_read, on_tokens=on_tokens)
    write_record(job.output, shard, plan_digest=job.plan_digest, raw_shard=raw_shard)
    return shard


def tokenize_shard(
    job: ShardJob, tokenizer: Tokenizer, *, on_read: Callable[[int], None], on_tokens: Callable[[int], None]
) -> Shard:
    """Write the token shard of `job`; after an error there is none. The callbacks are told of progress.

    Memory holds one batch of documents, or one document where it is longer.
    """
    documents = read_documents(job.path, text_field=job.text_field, document_rule=job.document_rule, on_read=on_read)
    end_id = end_token_id(tokenizer)
    with ShardWriter(job.output, job.name, source=source_name(job.path), vocab_size=vocab_size(tokenizer)) as writer:
        for batch in batches(documents):
            before = writer.num_tokens
            for ids in encode_documents(tokenizer, batch):
                writer.add_document([*ids, end_id])
            on_tokens(writer.num_tokens - before)
    return writer.shard


def source_name(path: Path) -> str:
    """Return folder and name of a raw shard."""
    return "/".join(path.absolute().parts[-2:])


def batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Group documents until a batch has BATCH_CHARACTERS."""
    batch: list[str] = []
    num_characters = 0
    for document in documents:
        batch.append(document)
        num_characters += len(document)
        if num_characters >= BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch
