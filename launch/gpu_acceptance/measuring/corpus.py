"""A small real corpus with its tokenizer, counts and balanced table, for a run that trains by its own command."""

import lzma
from pathlib import Path

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import write_counts
from data_prep.embedded_corpus import write_corpus
from data_prep.tables.make_route_table import TableOptions, make_route_table
from data_prep.tables.route_table_file import write_route_table
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer

_VOCAB_SIZE = 2048


def make_corpus(folder: Path, *, num_experts: int, num_tables: int) -> dict[str, str]:
    """train_data and route_table of a recipe; makes in seconds what a killed start has not finished."""
    shards, table = folder / "train", folder / f"balanced_{num_experts}.safetensors"
    write_corpus(folder / "text")
    texts = sorted((folder / "text" / "train").glob("*.xz"))
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        contents = [lzma.decompress(text.read_bytes()).decode() for text in texts]
        documents = [document for content in contents for document in content.split("\n\n")]
        save_tokenizer(train_tokenizer(documents, vocab_size=_VOCAB_SIZE), folder / "tokenizer")
    if not (shards / "manifest.json").is_file():
        tokenize_folder(texts, tokenizer=folder / "tokenizer", output=shards)
    counts = count_folders([shards])
    write_counts(shards / "counts.safetensors", counts)
    write_route_table(table, make_route_table(counts, TableOptions(num_experts, num_tables=num_tables)))
    return {"train_data": str(shards), "route_table": [str(table)]}
