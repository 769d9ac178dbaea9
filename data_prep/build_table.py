"""Build a route table from counts: `python -m data_prep.build_table --counts FILE --num_experts 16 --output FILE`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_prep.counts.counts_file import Counts, read_counts
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.shards.manifest import MANIFEST_NAME, read_manifest
from data_prep.shards.mixture import MIXTURE_NAME, read_mixture
from data_prep.shards.token_stream import TokenStream
from data_prep.storage.model_weights import read_embeddings
from data_prep.tables.make_route_table import build_table, with_vocab_size
from data_prep.tables.methods import METHODS
from data_prep.tables.route_table import RouteTable, write_route_table

MISMATCHES = ("corpus_digest", "tokenizer_digest")


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    counts = with_vocab_size(read_counts(arguments.counts), arguments.vocab_size)
    folder = _counted_folder(arguments, counts)
    heaviest_text = _heaviest_text(counts, arguments.tokenizer or _tokenizer_beside(arguments.counts))
    table = build_table(
        counts,
        arguments.num_experts,
        hash_key=arguments.hash_key,
        method=arguments.method,
        num_tables=arguments.num_tables,
        num_hashes=arguments.num_hashes,
        top_k=arguments.top_k,
        rotation_period=arguments.rotation_period,
        seed=arguments.seed,
        ep_size=arguments.ep_size,
        embeddings=_embeddings(arguments, counts),
        split_stream=TokenStream(folder) if arguments.split_frequent_tokens else None,
        split_threshold=arguments.split_threshold,
        context_length=arguments.context_length,
    )
    write_route_table(arguments.output, table)
    print(_report(table, counts, heaviest_text))
    print(f"-> {arguments.output}  {table.digest}")


def _counted_folder(arguments: argparse.Namespace, counts: Counts) -> Path | None:
    """Return --tokens or the folder of the counts, if it has tokens; ValueError where those are another corpus."""
    folder = Path(arguments.tokens or Path(arguments.counts).parent)
    if (folder / MANIFEST_NAME).is_file():
        corpus, file = read_manifest(folder), folder / MANIFEST_NAME
    elif folder.is_file() or (folder / MIXTURE_NAME).is_file():
        if arguments.split_frequent_tokens:
            raise ValueError(
                f"--split_frequent_tokens reads one folder of token shards, but {folder} is a mixture of several"
            )
        corpus, file = read_mixture(folder), folder
    elif arguments.split_frequent_tokens or arguments.tokens:
        raise ValueError(f"{folder} holds no {MANIFEST_NAME}; give the counted folder of tokens with --tokens")
    else:
        return None
    for name in MISMATCHES:
        counted, found = getattr(counts, name), getattr(corpus, name)
        if counted != found and name not in arguments.allow_mismatch:
            raise ValueError(
                f"{arguments.counts} has {name} {counted} but {file} says {found}; "
                f"count the tokens again, or pass --allow_mismatch {name}"
            )
    return folder


def _embeddings(arguments: argparse.Namespace, counts: Counts) -> np.ndarray | None:
    if arguments.embeddings is None:
        return None
    return read_embeddings(arguments.embeddings, num_tokens=counts.vocab_size, name=arguments.embeddings_name)


def _report(table: RouteTable, counts: Counts, heaviest_text: str) -> str:
    share = counts.counts.max() / counts.num_tokens
    shape = f"{table.num_tables} x {table.tables.shape[1]:,} keys -> {table.num_experts} experts"
    if table.num_choices > 1:
        shape += f", {table.num_hashes} hashes" if table.top_k == 1 else f", top {table.top_k}"
    if table.rotation_period > 1:
        shape += f", {table.rotation_period} turns"
    lines = [
        f"{table.method} table of key {table.hash_key}: {shape}",
        f"expert load, max/mean: {table.max_over_mean:.4f} (no table can do better than {table.lower_bound:.4f})",
        f"rank load, max/mean over ep_size={table.ep_size} ranks: {table.rank_max_over_mean:.4f}",
        f"heaviest {counts.hash_key}: id {counts.counts.argmax()}{heaviest_text}, "
        f"{share:.2%} of {counts.num_tokens:,} tokens",
    ]
    if table.split is not None:
        lines.append(f"{len(table.split.split_table)} heavy tokens are split by the token before them")
    return "\n".join(lines)


def _heaviest_text(counts: Counts, folder: Path | str | None) -> str:
    if folder is None or counts.hash_key != "token":
        return ""
    tokenizer = load_tokenizer(folder)
    digest = tokenizer_digest(tokenizer)
    if digest != counts.tokenizer_digest:
        raise ValueError(
            f"the counts are of tokenizer {counts.tokenizer_digest} but {folder} holds {digest}; give that tokenizer"
        )
    return f" {tokenizer.decode([int(counts.counts.argmax())], skip_special_tokens=False)!r}"


def _tokenizer_beside(counts_path: str) -> Path | None:
    folder = Path(counts_path).parent / "tokenizer"
    return folder if folder.is_dir() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.build_table", description=__doc__)
    add = parser.add_argument
    add("--counts", required=True, help="counts file written by data_prep.count_tokens")
    add("--num_experts", type=int, required=True, help="number of experts of a sparse layer")
    add("--method", choices=sorted(METHODS), default="balanced", help="how keys get their experts (default: balanced)")
    add("--hash_key", choices=sorted(COUNTED_AS), help="what is hashed (default: as counted)")
    add("--num_tables", type=int, default=1, help="one table per sparse layer (default: 1)")
    add("--num_hashes", type=int, default=1, help="MultiHash: different tables per layer (default: 1)")
    add("--top_k", type=int, default=1, help="different experts per token, for models that add them up (default: 1)")
    add(
        "--rotation_period",
        type=int,
        default=1,
        help="experts take so many turns by position (default: 1, as in the paper)",
    )
    add("--seed", type=int, default=0, help="same seed, same table (default: 0)")
    add("--ep_size", type=int, default=1, help="ranks that share the experts; balances them too (default: 1)")
    add("--vocab_size", type=int, help="the model's padded vocabulary, e.g. 51200 (default: as counted)")
    add("--embeddings", metavar="MODEL_DIR", help="trained model (.safetensors) for --method clustered and dispersed")
    add("--embeddings_name", default="transformer.wte.weight", help="its tensor (default: transformer.wte.weight)")
    add(
        "--split_frequent_tokens",
        action="store_true",
        help="split tokens heavier than an expert by the token before them",
    )
    add(
        "--split_threshold",
        type=float,
        default=1.0,
        help="split tokens above this share of an expert's load (default: 1)",
    )
    add(
        "--context_length",
        type=int,
        default=0,
        help="the model's, for --split_frequent_tokens (default: one long context)",
    )
    add("--tokens", metavar="DIR", help="the counted token shards or mixture (default: the folder of the counts)")
    add(
        "--allow_mismatch",
        action="append",
        choices=MISMATCHES,
        default=[],
        help="accept counts whose digest differs from that of the tokens beside them; once per field",
    )
    add("--tokenizer", help="tokenizer folder, to show the heaviest token (default: tokenizer/ beside the counts)")
    add("--output", required=True, help="route table to write, .safetensors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
