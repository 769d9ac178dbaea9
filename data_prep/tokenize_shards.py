"""Turn raw shards into token shards: `python -m data_prep.tokenize_shards --input PATH --tokenizer DIR --output DIR`.

Each raw shard becomes one token shard, and shards are shared out among processes: the bytes do not depend on how many.
"""

import argparse
import sys
import time
from pathlib import Path

from data_prep.command_line import user_errors_in_one_line
from data_prep.manifest import Manifest, make_manifest, write_manifest
from data_prep.output_folder import copy_tokenizer, prepare_folder
from data_prep.readers import DOCUMENT_RULES, find_inputs
from data_prep.shard_job import ShardJob
from data_prep.shard_workers import run_jobs
from data_prep.tokenizer import end_token_id, load_tokenizer, tokenizer_digest, vocab_size


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    start = time.perf_counter()
    manifest = tokenize_shards(
        arguments.input,
        tokenizer=arguments.tokenizer,
        output=arguments.output,
        num_workers=arguments.workers,
        text_field=arguments.text_field,
        document_rule=arguments.document_rule,
        overwrite=arguments.overwrite,
    )
    rate = manifest.num_tokens / (time.perf_counter() - start)
    print(
        f"{manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens in {len(manifest.shards)} shards, "
        f"{rate:,.0f} tokens/s -> {arguments.output}"
    )


def tokenize_shards(
    inputs: list[str | Path],
    *,
    tokenizer: str | Path,
    output: str | Path,
    num_workers: int = 1,
    text_field: str = "text",
    document_rule: str = "auto",
    overwrite: bool = False,
) -> Manifest:
    """Write the folder `output`: token shards, a copy of the tokenizer and, last of all, the manifest."""
    paths = find_inputs(inputs)
    loaded = load_tokenizer(tokenizer)
    end_id = end_token_id(loaded)
    output = prepare_folder(output, overwrite=overwrite)
    own_tokenizer = copy_tokenizer(tokenizer, output)
    jobs = [
        ShardJob(path, _shard_name(number, path), output, text_field, document_rule)
        for number, path in enumerate(paths)
    ]
    shards = run_jobs(jobs, tokenizer=own_tokenizer, num_workers=num_workers)
    manifest = make_manifest(
        shards, tokenizer_digest=tokenizer_digest(loaded), vocab_size=vocab_size(loaded), end_token_id=end_id
    )
    write_manifest(output, manifest)
    return manifest


def _shard_name(number: int, path: Path) -> str:
    """Return e.g. "00003-en-00000": the number keeps the order and tells equal names apart."""
    return f"{number:05d}-{path.name.split('.')[0]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenize_shards", description=__doc__)
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="raw shards, or folders of them: txt, jsonl, parquet")
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    add("--output", required=True, metavar="DIR", help="folder to write; must be new or empty")
    add("--workers", type=int, default=1, help="processes; one raw shard each at a time (default: 1)")
    add("--text_field", default="text", help="field of .jsonl, column of .parquet that holds the text (default: text)")
    add(
        "--document_rule",
        choices=DOCUMENT_RULES,
        default="auto",
        help="what ends a document in .txt (auto: a blank line)",
    )
    add("--overwrite", action="store_true", help="replace the token shards that --output already holds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
