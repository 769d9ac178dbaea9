"""Find the tokens that a counts file was made from, beside it or by name, and compare their digests."""

from collections.abc import Collection
from pathlib import Path

from data_prep.counts.counts_file import Counts
from data_prep.shards.manifest import MANIFEST_NAME, read_manifest
from data_prep.shards.mixture import MIXTURE_NAME, Mixture, read_mixture

DIGESTS = ("corpus_digest", "tokenizer_digest")


def check_counted_tokens(
    counts: Counts, counts_path: str | Path, *, tokens: str | Path | None = None, allow_mismatch: Collection[str] = ()
) -> None:
    """Raise ValueError if `tokens`, or the corpus beside the counts, is not the one that was counted.

    Without `tokens`, the counts may lie alone. `allow_mismatch` names those of DIGESTS that may differ.
    """
    folder = counted_folder(counts_path, tokens)
    if (folder / MANIFEST_NAME).is_file():
        corpus, file = read_manifest(folder), folder / MANIFEST_NAME
    elif _is_mixture(folder):
        corpus, file = read_mixture(folder), folder
    elif tokens:
        raise ValueError(_holds_no_tokens(folder))
    else:
        return
    for name in DIGESTS:
        counted, found = getattr(counts, name), getattr(corpus, name)
        if counted != found and name not in allow_mismatch:
            raise ValueError(
                f"{counts_path} has {name} {counted} but {file} says {found}; "
                f"count the tokens again, or pass --allow_mismatch {name}"
            )


def open_counted_tokens(counts_path: str | Path, *, tokens: str | Path | None = None) -> Mixture:
    """Open the counted tokens, a folder of shards or a mixture; ValueError unless they are named or lie there."""
    folder = counted_folder(counts_path, tokens)
    if not (folder / MANIFEST_NAME).is_file() and not _is_mixture(folder):
        raise ValueError(_holds_no_tokens(folder))
    return read_mixture(folder)


def counted_folder(counts_path: str | Path, tokens: str | Path | None) -> Path:
    """Return `tokens` or, without it, the folder of the counts."""
    return Path(tokens or Path(counts_path).parent)


def _is_mixture(path: Path) -> bool:
    return path.is_file() or (path / MIXTURE_NAME).is_file()


def _holds_no_tokens(folder: Path) -> str:
    return f"{folder} holds neither {MANIFEST_NAME} nor {MIXTURE_NAME}; give the counted tokens with --tokens"
