"""Check every bit of folders of token shards: `python -m data_prep.verify DIR ...` reports each damaged file."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.shards.block_sums import sums_size
from data_prep.shards.blocks import BlockCheck, check_ids, check_listed, check_size
from data_prep.shards.manifest import Manifest, Shard, read_manifest
from data_prep.shards.megatron_index import check_index, index_size
from data_prep.shards.mixture import mixture_folders
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER, check_tokenizer_files
from data_prep.shards.verified import trusted_mtime_ns, write_stamp
from data_prep.tokenizing.sources import SOURCES_NAME, read_sources


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Return 0 if all files are intact, 1 if any is damaged."""
    is_intact = True
    for folder in _folders(_parser().parse_args(argv).folders):
        problems = verify(folder)
        print(*(problems or [_intact(folder)]), sep="\n")
        is_intact = is_intact and not problems
    return 0 if is_intact else 1


def _folders(paths: list[str]) -> list[Path]:
    """Return the folders of token shards that `paths` name, and those of all parts of the mixtures among them."""
    return [folder for path in paths for folder in (mixture_folders(path) or [Path(path)])]


def verify(folder: Path) -> list[str]:
    """Return the problems, one sentence per file; FileNotFoundError if `folder` has no manifest.

    Leave a stamp of the intact .bin files, so that training need not compare their digests again.
    """
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return [str(error)]  # without an intact manifest there is nothing to compare the files with
    num_bytes, verified = manifest.num_tokens * np.dtype(manifest.dtype).itemsize, {}
    with tqdm(total=num_bytes, unit="B", unit_scale=True, desc="verify") as bar:
        checks = _checks(folder, manifest, verified, on_read=bar.update)
        problems = [problem for path, check in checks if (problem := _problem(path, check)) is not None]
    write_stamp(folder, manifest, verified)
    return problems


def _checks(
    folder: Path, manifest: Manifest, verified: dict[str, int], *, on_read: Callable[[int], object]
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield (file, or folder of the tokenizer; function that raises ValueError or OSError if it is damaged).

    verified: receives the time of the last change of each shard's .bin that is intact, by the shard's name.
    """
    tokenizer = folder / TOKENIZER_FOLDER
    if tokenizer.is_dir() or manifest.tokenizer_files:  # predictions have none
        yield tokenizer, partial(_check_tokenizer, tokenizer, manifest)
    if manifest.sources_xxh3:
        yield folder / SOURCES_NAME, partial(read_sources, folder, manifest)
    for shard in manifest.shards:
        index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
        yield index, partial(_check_index, index, shard)
        yield tokens, partial(_check_tokens, tokens, shard, manifest, verified, on_read=on_read)


def _problem(path: Path, check: Callable[[], None]) -> str | None:
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"  # an error of the disk names no file
    return None


def _check_tokens(
    path: Path, shard: Shard, manifest: Manifest, verified: dict[str, int], *, on_read: Callable[[int], object]
) -> None:
    check_listed(path)
    mtime_ns, dtype = trusted_mtime_ns(path), np.dtype(manifest.dtype).newbyteorder("<")
    num_bytes = shard.num_tokens * dtype.itemsize
    check_size(path, path.stat().st_size, num_bytes)
    check = BlockCheck(path, shard, num_bytes=num_bytes)
    check_size(check.sums_path, check.sums_path.stat().st_size, sums_size(check.num_blocks))
    damage = []
    for first, content in check.pieces():
        damage += check.damage(content, first=first)
        if not damage:
            check_ids(path, np.frombuffer(content, dtype), vocab_size=manifest.vocab_size)
        on_read(len(content))
    if damage:
        raise ValueError(f"{damage[0]} ({len(damage)} of its {check.num_blocks} blocks are damaged)")
    if mtime_ns:
        verified[shard.name] = mtime_ns


def _check_index(path: Path, shard: Shard) -> None:
    check_listed(path)
    check_size(path, path.stat().st_size, index_size(shard.num_documents))
    check_index(path, path.read_bytes(), xxh3=shard.index_xxh3)


def _check_tokenizer(path: Path, manifest: Manifest) -> None:
    check_tokenizer_files(path.parent, manifest.tokenizer_files)
    found, expected = tokenizer_digest(load_tokenizer(path)), manifest.tokenizer_digest
    if found != expected:
        raise ValueError(f"{path} has digest {found}, but the tokens were made with {expected}; copy it again")


def _intact(folder: Path) -> str:
    manifest = read_manifest(folder)
    num_skipped = sum(len(source.skipped) for source in read_sources(folder, manifest))
    tokenizer = "intact" if (folder / TOKENIZER_FOLDER).is_dir() else "none in the folder"
    return (
        f"{folder} is intact (shards: {len(manifest.shards):,}, tokens: {manifest.num_tokens:,}, "
        f"records skipped: {num_skipped:,}, tokenizer: {tokenizer})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.verify", description=__doc__)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folder of token shards or of predictions, or a mixture, whose parts are all checked",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
