"""Read the members of a .tar as a stream, and refuse an archive that is cut short, ambiguous or out to fill memory."""

import tarfile
from collections.abc import Iterator

from data_prep.documents.files.tar_headers import Member, Tape, next_member


def tar_members(label: str, blocks: Iterator[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and the blocks of each file that is not hidden; read the blocks before the next name.

    ValueError for a link, whose text may be elsewhere, for a sparse file, and for extended headers above 1 MiB.
    DamagedShard if the archive has no end mark, because it was cut short, or if anything but zeros follows the mark.
    """
    tape = Tape(label, blocks)
    for member in iter(lambda: next_member(tape), None):
        end = tape.position + member.num_bytes
        if _is_visible(member.name) and not member.header.isdir():
            _check_is_file(label, member)
            yield member.name, tape.content(end)
        tape.skip_to(end + -member.num_bytes % tarfile.BLOCKSIZE)
    tape.check_only_zeros_follow()


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _check_is_file(label: str, member: Member) -> None:
    if not member.header.isfile():
        linkname, kind = member.header.linkname, member.header.type
        found = f"a link to {linkname}" if linkname else f"of tar's type {kind!r}"
        raise ValueError(
            f"{label}, {member.name} is {found}, not a file; create the archive with `tar --dereference "
            "--hard-dereference`, or exclude this member"
        )
