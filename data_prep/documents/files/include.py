"""`--include GLOB`: the files to read, of folders, globs, remote stores and archives."""

import reprlib
from pathlib import PurePosixPath

from data_prep.documents.files.suffixes import ARCHIVE, format_of

Include = tuple[str, ...]  # patterns such as "*.jsonl" and "train/*"; without any, everything is read


def include_of(patterns: str | list[str] | Include) -> Include:
    """Return the patterns of an option or a recipe; ValueError for one that is not text."""
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns if isinstance(patterns, list | tuple) else [0])
    for pattern in found:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"include={reprlib.repr(patterns)} must be a pattern such as '*.jsonl', or a list of them")
    return found


def chosen(path: str, include: Include) -> Include | None:
    """Return what `include` leaves of a file: () is all of it, and None is nothing.

    A pattern is compared with the last parts of the path. An archive that matches none is searched for members that do.
    """
    if not include or any(PurePosixPath(path).match(pattern) for pattern in include):
        return ()
    return include if format_of(path) == ARCHIVE else None
