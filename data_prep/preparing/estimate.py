"""What preparing a corpus takes: files, bytes, expected tokens, time and disk, estimated from a tokenized sample."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.pieces import cut_documents
from data_prep.documents.raw_shards import RawShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.preparing.corpus import Corpus
from data_prep.shards.manifest import token_dtype
from data_prep.tokenizing.shard_job import ShardTokenizer

SAMPLED_FILES = 4  # per part, evenly spaced
SAMPLED_CHARACTERS = 2**21  # per file, from its start
START_SECONDS = 2  # to start the processes of one part
INDEX_BYTES_PER_DOCUMENT = 20
BYTES = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Estimate:
    """The size of one part. Tokens, documents and seconds are 0 if the size of its raw shards is unknown."""

    name: str
    num_files: int
    num_bytes: int  # of the raw shards, as they are stored
    num_tokens: int
    num_documents: int
    seconds: float  # to tokenize it in one process

    def disk_bytes(self, vocab_size: int) -> int:
        bytes_per_token = 2 if token_dtype(vocab_size) == "uint16" else 4
        return self.num_tokens * bytes_per_token + self.num_documents * INDEX_BYTES_PER_DOCUMENT


def dry_run(corpus: Corpus, output: Path, tokenizer: ShardTokenizer, *, num_processes: int) -> str:
    """Return a table of the parts, and the time and disk that they take; nothing is written."""
    found = corpus.find_raw_shards(output)
    estimates = [estimate_part(part.name, found[part.name], part.rules, tokenizer) for part in corpus.parts]
    disk = sum(estimate.disk_bytes(tokenizer.vocab_size) for estimate in estimates)
    seconds = sum(START_SECONDS + each.seconds / min(num_processes, each.num_files) for each in estimates)
    return "\n".join(
        [
            f"{'part':20}{'files':>8}{'bytes':>12}{'tokens':>12}{'bytes/token':>13}",
            *map(_line, estimates),
            f"time: about {duration(seconds)} with {num_processes} processes, counts and reports not included",
            f"disk: about {size(disk)} in {output}, where {size(_free_bytes(output))} are free",
            "tokens, time and disk are extrapolated from a sample; nothing was written",
        ]
    )


def estimate_part(name: str, raw_shards: list[RawShard], rules: DocumentRules, tokenizer: ShardTokenizer) -> Estimate:
    """Tokenize the starts of some raw shards. ValueError for a record in them that cannot be read."""
    num_sampled = min(SAMPLED_FILES, len(raw_shards))
    start = time.perf_counter()
    samples = [_sample(raw_shards[i * len(raw_shards) // num_sampled], rules, tokenizer) for i in range(num_sampled)]
    seconds = time.perf_counter() - start
    bytes_read, num_tokens, num_documents = map(sum, zip(*samples, strict=True))
    num_bytes = sum(raw_shard.num_bytes for raw_shard in raw_shards)
    scale = num_bytes / max(bytes_read, 1)
    return Estimate(
        name, len(raw_shards), num_bytes, round(num_tokens * scale), round(num_documents * scale), seconds * scale
    )


def _sample(raw_shard: RawShard, rules: DocumentRules, tokenizer: ShardTokenizer) -> tuple[int, int, int]:
    """Return the bytes that were read, and their tokens and documents."""
    blocks: list[int] = []  # sizes of those that were read
    texts: list[str] = []
    num_characters = num_documents = num_blocks = 0  # num_blocks: those that hold `texts`
    parts = raw_shard.read_parts(rules, SkippedRecords(raw_shard.label), blocks.append)
    is_told_before = True  # rows of .parquet are told when they have been read, other blocks before
    for text, ends_document in cut_documents(parts, tokenizer.last_cut):
        is_told_before = is_told_before if texts else bool(blocks)
        if num_characters >= SAMPLED_CHARACTERS and len(blocks) > num_blocks:
            blocks = blocks[:num_blocks] if is_told_before else blocks
            break
        num_blocks = len(blocks)
        texts.append(text)
        num_characters += len(text)
        num_documents += ends_document
    ids, _ = tokenizer.encoder.encode(texts)
    return sum(blocks), len(ids) + num_documents, num_documents


def _line(estimate: Estimate) -> str:
    per_token = f"{estimate.num_bytes / estimate.num_tokens:.2f}" if estimate.num_tokens else "?"
    tokens = f"{estimate.num_tokens / 1e6:,.1f} M" if estimate.num_tokens else "?"
    return f"{estimate.name:20}{estimate.num_files:>8,}{size(estimate.num_bytes):>12}{tokens:>12}{per_token:>13}"


def size(num_bytes: float) -> str:
    """Return a number of bytes with three digits and a unit."""
    unit = 0
    while num_bytes >= 1000 and unit < len(BYTES) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {BYTES[unit]}"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk that will hold a folder, which need not exist."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
