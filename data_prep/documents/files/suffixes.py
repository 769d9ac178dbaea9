"""The suffixes of raw files: a format, possibly within compressions, in upper or lower case."""

from data_prep.documents.files.decompress import DECOMPRESSORS

TEXT, ROWS, PARQUET, ARCHIVE = "lines of text", "lines of JSON", "parquet", "an archive"
FORMATS = {
    ".txt": TEXT,
    ".jsonl": ROWS,
    ".ndjson": ROWS,
    ".json": ROWS,
    ".parquet": PARQUET,
    ".tar": ARCHIVE,
}
MOST_LEVELS = 8  # archives and compressions within each other
_MOST_NAMED = 20


def split_suffix(name: str) -> tuple[str, list[str]]:
    """Return the format of a file and its compressions, outermost first; ValueError for an unknown suffix."""
    base, _, last = name.rpartition(".")
    compressions = []
    while (suffix := f".{last.lower()}") in DECOMPRESSORS and len(compressions) < MOST_LEVELS:
        compressions.append(suffix)
        base, _, last = base.rpartition(".")
    if suffix not in FORMATS:
        raise unsupported([name])
    return FORMATS[suffix], compressions


def format_of(name: str) -> str | None:
    """Return the format of a file; None for an unknown suffix."""
    try:
        return split_suffix(name)[0]
    except ValueError:
        return None


def is_plain(name: str) -> bool:
    """Whether a file holds its text byte for byte; False for an unknown suffix."""
    return format_of(name) in (TEXT, ROWS) and not split_suffix(name)[1]


def unsupported(names: list[str]) -> ValueError:
    """Return the error of files whose suffixes are unknown; it names the first of them."""
    named = names[:_MOST_NAMED] + [f"{len(names) - _MOST_NAMED:,} more"] * (len(names) > _MOST_NAMED)
    files = names[0] + " has" if len(names) == 1 else f"{len(names):,} files have"
    others = "" if len(names) == 1 else f": {', '.join(named)}"
    return ValueError(
        f"{files} no supported suffix ({', '.join(FORMATS)}, alone or with {', '.join(DECOMPRESSORS)}){others}; rename "
        "or convert what is text, and choose it with --include GLOB"
    )
