"""The benchmark's cases: ways to tokenize a text, to read its formats, to count its tokens and to load them."""

import gzip
import io
import json
import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

from data_prep.counts.count_folders import count_folders
from data_prep.documents.raw_shards import RawFile, find_raw_shards, read_documents
from data_prep.encoding.end_token import find_end_token
from data_prep.encoding.make_encoder import BACKENDS
from data_prep.encoding.tokenizer import load_tokenizer, vocab_size
from data_prep.shards.sequences import Sequences
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.shard_job import ShardJob, ShardTokenizer, tokenize_shard
from data_prep.tokenizing.tokenize_folder import tokenize_folder

CONTEXT_LENGTH, BATCH_SEQUENCES = 1024, 128
COUNTED_TOKENS = 200_000_000  # a second of counting; the text's tokens are counted repeatedly
LOADED_TOKENS = 50_000_000
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress
FORMATS = {
    ".txt": bytes,
    ".txt.gz": gzip.compress,
    ".txt.xz": partial(lzma.compress, preset=6),
    ".txt.zst": ZSTD,
}


@dataclass(frozen=True)
class BenchmarkFiles:
    """One text in all formats (folder/text.SUFFIX), its token shards (folder/tokens), and a tokenizer."""

    folder: Path
    tokenizer: Path

    def documents(self) -> list[str]:
        return list(read_documents(RawFile(self.folder / "text.txt")))


@dataclass(frozen=True)
class Case:
    """make: prepares a measurement and returns the function to time, which returns the amount of its work in units."""

    make: Callable[[BenchmarkFiles], Callable[[], int]]
    unit: str
    tokenizes_the_text: bool = False


def write_files(folder: Path, inputs: list[str], tokenizer: str, *, num_bytes: int) -> BenchmarkFiles:
    """Write the first num_bytes of the documents of `inputs` in every format; ValueError if there is no text."""
    documents, size = [], 0
    for document in (text for shard in find_raw_shards(inputs) for text in read_documents(shard)):
        documents.append(document[: num_bytes - size])
        size += len(documents[-1])
        if size >= num_bytes:
            break
    if size == 0:
        raise ValueError(f"{', '.join(map(str, inputs))} contain no text; give raw shards with text")
    text = "".join(f"{document}\n\n" for document in documents).encode()
    for suffix, compress in FORMATS.items():
        (folder / f"text{suffix}").write_bytes(compress(text))
    files = BenchmarkFiles(folder, Path(tokenizer))
    documents = files.documents()  # blank lines inside the originals divide them here
    rows = "".join(json.dumps({"text": document}) + "\n" for document in documents)
    (folder / "text.jsonl").write_text(rows)
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), folder / "text.parquet")
    tokenize_folder([folder / "text.txt"], tokenizer=tokenizer, output=folder / "tokens")
    return files


def write_large_document(files: BenchmarkFiles, *, num_bytes: int) -> None:
    """Repeat the text without its blank lines, as one document of at least num_bytes."""
    text = "\n".join(files.documents()).replace("\n\n", "\n").encode() + b"\n"
    with open(files.folder / "large.txt", "wb") as file:
        for _ in range(-(-num_bytes // len(text))):
            file.write(text)


def encode_batch(files: BenchmarkFiles) -> Callable[[], int]:
    """Encode all documents in one call of the tokenizers library."""
    tokenizer, documents = load_tokenizer(files.tokenizer), files.documents()
    return lambda: (
        len(documents)
        + sum(len(encoding.ids) for encoding in tokenizer.encode_batch(documents, add_special_tokens=False))
    )


def datatrove_pattern(files: BenchmarkFiles) -> Callable[[], int]:
    """Work like datatrove: read rows, encode batches of 1,000, pack each document's ids with struct and write them."""
    tokenizer = load_tokenizer(files.tokenizer)
    end_id, code = _end_id(files), "H" if vocab_size(tokenizer) <= 2**16 else "I"

    def run() -> int:
        num_tokens, batch = 0, []
        with open(files.folder / "text.jsonl", encoding="utf-8") as rows, io.BytesIO() as out:
            for row in rows:
                batch.append(json.loads(row)["text"])
                if len(batch) == 1000:
                    num_tokens += write(batch, out)
                    batch = []
            return num_tokens + write(batch, out)

    def write(batch: list[str], out: io.BytesIO) -> int:
        encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        all_ids = [[*encoding.ids, end_id] for encoding in encodings]
        for ids in all_ids:
            out.write(struct.pack(f"<{len(ids)}{code}", *ids))
        return sum(map(len, all_ids))

    return run


def tokenize(files: BenchmarkFiles, *, backend: str, text: str = "text.txt") -> Callable[[], int]:
    """Tokenize as this package does: from the raw shard to the token shard and its digests on disk."""
    tokenizer = ShardTokenizer(files.tokenizer, backend=backend, num_threads=1)
    job = ShardJob((RawFile(files.folder / text),), f"of_{backend}", files.folder, "", _end_id(files))
    return lambda: tokenize_shard(job, tokenizer, on_read=lambda n: None, on_tokens=lambda n: None).shard.num_tokens


def _end_id(files: BenchmarkFiles) -> int:
    tokenizer = load_tokenizer(files.tokenizer)
    return tokenizer.token_to_id(find_end_token(files.tokenizer, tokenizer))


def read(files: BenchmarkFiles, *, suffix: str) -> Callable[[], int]:
    """Read the documents of a raw shard; return their number of characters."""
    raw_shard = RawFile(files.folder / f"text{suffix}")
    return lambda: sum(map(len, read_documents(raw_shard)))


def count(files: BenchmarkFiles, **options) -> Callable[[], int]:
    """Count the hash keys of token shards, and check the digests of their blocks."""
    folder = files.folder / "tokens"
    times = max(1, COUNTED_TOKENS // TokenStream(folder).num_tokens // (1 if not options else 10))
    return lambda: sum(count_folders([folder], **options).num_tokens for _ in range(times))


def load(files: BenchmarkFiles) -> Callable[[], int]:
    """Read batches of sequences in shuffled order from the page cache, and check the digests of their blocks."""
    context_length = min(CONTEXT_LENGTH, TokenStream(files.folder / "tokens").num_tokens // 4)
    sequences = Sequences(TokenStream(files.folder / "tokens"), context_length=context_length)
    num_batches = max(1, LOADED_TOKENS // (BATCH_SEQUENCES * context_length))
    indices = np.random.default_rng(0).integers(sequences.num_sequences, size=(num_batches, BATCH_SEQUENCES))
    return lambda: sum(sequences.read(batch, num_following=1)[:, 1:].size for batch in indices)


REFERENCE = "tokenizers' own encode_batch"
LARGE_DOCUMENT = "tokenize_shards, gigatoken, one document"
TOKENS, CHARACTERS = "M tokens/s", "M characters/s"
CASES = {
    REFERENCE: Case(encode_batch, TOKENS, tokenizes_the_text=True),
    "datatrove's pattern": Case(datatrove_pattern, TOKENS, tokenizes_the_text=True),
    **{
        f"tokenize_shards, {backend}": Case(partial(tokenize, backend=backend), TOKENS, tokenizes_the_text=True)
        for backend in BACKENDS
    },
    LARGE_DOCUMENT: Case(partial(tokenize, backend="gigatoken", text="large.txt"), TOKENS),
    **{f"read {suffix}": Case(partial(read, suffix=suffix), CHARACTERS) for suffix in (*FORMATS, ".jsonl", ".parquet")},
    "count_tokens": Case(count, "M tokens/s counted"),
    "count_tokens --hash_key previous": Case(partial(count, hash_key="previous"), "M tokens/s counted"),
    "count_tokens --hash_key bigram": Case(partial(count, hash_key="bigram", num_buckets=50_000), "M tokens/s counted"),
    "load sequences, shuffled": Case(load, "M tokens/s loaded"),
}
