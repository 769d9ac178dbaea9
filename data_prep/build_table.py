"""Build a route table from counts: `python -m data_prep.build_table --counts FILE --num_experts 16 --output FILE`.

Only --split_frequent_tokens reads the counted tokens; under an MPI launcher the ranks divide them.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from data_prep.counts.counted_tokens import DIGESTS, check_counted_tokens, open_counted_tokens
from data_prep.counts.counts_file import Counts, read_counts, with_vocab_size
from data_prep.counts.frequent_bigrams import FrequentBigrams, count_frequent_bigrams
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import MpiRanks, find_ranks, ranks_end_together
from data_prep.processes.worker_pool import resolve_workers, workers_or_auto
from data_prep.storage.model_weights import read_embeddings
from data_prep.table_checks.text_report import table_report
from data_prep.tables.make_route_table import TableOptions, make_route_table, tokens_to_split
from data_prep.tables.methods import METHODS
from data_prep.tables.route_table_file import write_route_table


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    counts = with_vocab_size(read_counts(arguments.counts), arguments.vocab_size)
    check_counted_tokens(counts, arguments.counts, tokens=arguments.tokens, allow_mismatch=arguments.allow_mismatch)
    most_frequent = _most_frequent_text(counts, arguments.tokenizer or _tokenizer_beside(arguments.counts))
    options = _options(arguments, counts)
    embeddings = None
    if arguments.embeddings is not None:
        embeddings = read_embeddings(arguments.embeddings, num_tokens=counts.vocab_size, name=arguments.embeddings_name)
    bigrams = _count_bigrams(arguments, counts, options, ranks)
    if ranks.rank > 0:  # rank 0 has the sum
        return
    table = make_route_table(
        counts, options, embeddings=embeddings, bigrams=bigrams, context_length=arguments.context_length
    )
    write_route_table(arguments.output, table)
    print(table_report(table, counts, most_frequent=most_frequent))
    print(f"-> {arguments.output}  {table.digest}")


def _count_bigrams(
    arguments: argparse.Namespace, counts: Counts, options: TableOptions, ranks: MpiRanks
) -> FrequentBigrams | None:
    """Count the tokens before those that are split. Collective over `ranks`."""
    if arguments.context_length < 0:
        raise ValueError(f"--context_length {arguments.context_length} must be at least 0")
    if not options.split_frequent_tokens:
        return None
    return count_frequent_bigrams(
        open_counted_tokens(arguments.counts, tokens=arguments.tokens),
        tokens_to_split(counts, options),
        vocab_size=counts.vocab_size,
        context_length=arguments.context_length,
        num_workers=resolve_workers(arguments.workers, num_on_host=ranks.num_on_host),
        ranks=ranks,
    )


def _options(arguments: argparse.Namespace, counts: Counts) -> TableOptions:
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(TableOptions)}
    return TableOptions(**values | {"hash_key": arguments.hash_key or counts.hash_key})


def _most_frequent_text(counts: Counts, folder: Path | str | None) -> str:
    """Return the most frequent token as text; "" without a tokenizer, or if another key was counted."""
    if folder is None or counts.hash_key != "token":
        return ""
    tokenizer = load_tokenizer(folder)
    digest = tokenizer_digest(tokenizer)
    if digest != counts.tokenizer_digest:
        raise ValueError(
            f"the counts are of tokenizer {counts.tokenizer_digest} but {folder} holds {digest}; give that tokenizer"
        )
    return repr(tokenizer.decode([int(counts.counts.argmax())], skip_special_tokens=False))


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
    add("--num_tables", type=int, default=1, help="number of tables, one per sparse layer (default: 1)")
    add("--num_hashes", type=int, default=1, help="number of hashes per layer, for MultiHash (default: 1)")
    add(
        "--top_k",
        type=int,
        default=1,
        help="different experts per token, for models that add up their outputs (default: 1)",
    )
    add(
        "--rotation_period",
        type=int,
        default=1,
        help="experts that each token rotates through by position (default: 1)",
    )
    add("--seed", type=int, default=0, help="equal seeds give equal tables (default: 0)")
    add("--ep_size", type=int, default=1, help="ranks that share the experts; they are balanced too (default: 1)")
    add("--vocab_size", type=int, help="the model's padded vocabulary, e.g. 51200 (default: as counted)")
    add("--embeddings", metavar="MODEL_DIR", help="trained model (.safetensors) for --method clustered and dispersed")
    add(
        "--embeddings_name",
        default="transformer.wte.weight",
        help="tensor of the embeddings (default: transformer.wte.weight)",
    )
    _add_splitting(parser)
    _add_provenance(parser)
    add("--output", required=True, help="route table to write, .safetensors")
    return parser


def _add_splitting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--split_frequent_tokens",
        action="store_true",
        help="split tokens that exceed an expert's mean load, by the token before them",
    )
    add(
        "--split_threshold",
        type=float,
        default=1.0,
        help="split tokens above this share of an expert's mean load (default: 1)",
    )
    add(
        "--context_length",
        type=int,
        default=0,
        help="the model's sequence length, for --split_frequent_tokens (default: one long context)",
    )
    add(
        "--workers",
        type=workers_or_auto,
        metavar="N",
        help="processes per rank that read tokens for --split_frequent_tokens (default: auto, one per core)",
    )


def _add_provenance(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tokens", metavar="DIR", help="the counted token shards or mixture (default: the folder of the counts)")
    add(
        "--allow_mismatch",
        action="append",
        choices=DIGESTS,
        default=[],
        help="accept counts whose digest differs from that of the tokens beside them; repeat for both fields",
    )
    add(
        "--tokenizer",
        help="folder of the tokenizer that decodes the most frequent token (default: tokenizer/ beside the counts)",
    )


if __name__ == "__main__":
    sys.exit(main())
