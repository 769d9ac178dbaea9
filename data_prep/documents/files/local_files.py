"""Find files in folders and globs: every visible one, once, in an order that depends on their names alone."""

import glob
import os
import stat
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path


def find_local_files(given: str, *, leave_out: Path | None = None) -> list[Path]:
    """Return the file `given`, or all files of a folder or glob without those of the folder `leave_out`.

    The files of a folder, at any depth, are sorted by relative path. Hidden files are skipped, links are followed.
    ValueError if there is none, FileNotFoundError if `given` does not exist.
    """
    path = Path(given)
    if path.is_dir():
        found = _visible_files(path, leave_out)
        if not found:
            raise ValueError(f"{path} has no files; give a folder with raw shards")
        return found
    if path.exists():
        return [path]
    if not glob.has_magic(given):
        raise FileNotFoundError(f"{path} does not exist; give raw shards, folders or globs of them, a URL, or hf:NAME")
    matches = sorted(map(Path, glob.glob(given, recursive=True)))
    found = [file for path in matches for file in (_visible_files(path, leave_out) if path.is_dir() else [path])]
    if leave_out is not None and not _begins_in(given, leave_out):
        found = [file for file in found if leave_out.resolve() not in file.resolve().parents]
    if not found:
        raise ValueError(f"{given} matches no file; correct it, or quote it if the shell changes it")
    return found


def true_path(file: Path, true_folders: dict[Path, str]) -> str:
    """Return the path without links; FileNotFoundError for a broken link, ValueError for a pipe, socket or device.

    true_folders: those of earlier calls, of which a million files need few.
    """
    status, is_link = os.lstat(file), False
    if stat.S_ISLNK(status.st_mode):
        if not file.exists():
            raise FileNotFoundError(f"{file} is a link to {os.readlink(file)}, which does not exist; repair it")
        status, is_link = os.stat(file), True
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file} is a pipe, a socket or a device; remove it, or copy its content to a file")
    if is_link:
        return os.path.realpath(file)
    if file.parent not in true_folders:
        true_folders[file.parent] = os.path.realpath(file.parent)
    return os.path.join(true_folders[file.parent], file.name)


def _begins_in(pattern: str, folder: Path) -> bool:
    """Whether the part of a glob before its first wildcard is `folder` or lies in it: then these files are meant."""
    root = Path(*takewhile(lambda name: not glob.has_magic(name), Path(pattern).parts)).resolve()
    return folder.resolve() in (root, *root.parents)


def _visible_files(folder: Path, leave_out: Path | None) -> list[Path]:
    return sorted(_walk(folder, leave_out), key=lambda file: file.relative_to(folder).as_posix())


def _walk(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Visit each folder once, however many links lead to it: they may form circles, or double at every level."""
    visited = {_identity(leave_out)} if leave_out is not None and leave_out.is_dir() else set()
    pending = [folder]
    while pending:
        parent = pending.pop()
        if _identity(parent) in visited:
            continue
        visited.add(_identity(parent))
        with os.scandir(parent) as entries:  # a folder that cannot be read is an error: it must not count as empty
            visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda each: each.name)
        pending += [Path(entry.path) for entry in reversed(visible) if entry.is_dir()]
        yield from (Path(entry.path) for entry in visible if not entry.is_dir())


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
