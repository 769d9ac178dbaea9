"""`--include GLOB`: the files to read, of folders, globs, remote stores and archives."""

from pathlib import PurePosixPath

from data_prep.documents.files.suffixes import ARCHIVE, format_of

Include = tuple[str, ...]  # patterns such as "*.jsonl" and "train/*"; without any, everything is read


def chosen(path: str, include: Include) -> Include | None:
    """Return what `include` leaves of a file: () is all of it, and None is nothing.

    A pattern is compared with the last parts of the path. An archive that matches none is searched for members that do.
    """
    if not include or any(PurePosixPath(path).match(pattern) for pattern in include):
        return ()
    return include if format_of(path) == ARCHIVE else None
