"""--max_bad_records: how many unreadable records may be skipped, as a number or as a share of all documents."""

import argparse
import math
from collections.abc import Iterable

from data_prep.documents.files.suffixes import is_plain
from data_prep.documents.raw_shards import RawFile, RawShard
from data_prep.tokenizing.sources import Source

NO_LIMIT = 2**63


def number_or_share(text: str) -> int | float:
    """Return "3" as 3 records, and "1e-6" as that share of all documents; ArgumentTypeError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number >= 0 and number.is_integer():
        return int(number)
    if 0 < number < 1:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number of records nor a share between 0 and 1")


def limit_per_raw_shard(max_bad_records: int | float, raw_shards: Iterable[RawShard]) -> int:
    """Return how many records of one raw shard may be skipped before the corpus has surely too many.

    raw_shards: all of them. A document of plain text has at least a byte, which bounds a share; that of other text, or
    of unknown size, has no bound before the end. check_bad_records is exact.
    """
    if not isinstance(max_bad_records, float):
        return max_bad_records
    raw_shards = list(raw_shards)
    if not all(isinstance(each, RawFile) and is_plain(each.path.name) for each in raw_shards):
        return NO_LIMIT
    return math.ceil(max_bad_records * sum(each.num_bytes for each in raw_shards))


def check_bad_records(sources: Iterable[Source], max_bad_records: int | float) -> None:
    """Raise ValueError if more records were skipped than allowed, naming the first of them."""
    sources = list(sources)
    skipped = [f"{source.part.source}, {record}" for source in sources for record in source.skipped]
    num_documents = len(skipped) + sum(source.num_documents + source.num_empty for source in sources)
    is_share = isinstance(max_bad_records, float)
    if len(skipped) > (max_bad_records * num_documents if is_share else max_bad_records):
        listed = "; ".join(skipped[:10]) + (" ..." if len(skipped) > 10 else "")
        raise ValueError(
            f"{len(skipped)} of {num_documents} records cannot be read, but --max_bad_records is {max_bad_records}: "
            f"{listed}; repair them, or repeat the command with --max_bad_records {len(skipped)}"
        )
