"""Decompress .gz, .bz2, .xz and .zst block by block, and refuse files that are cut short or damaged.

The libraries' own readers are not strict: zstandard's ends silently in the middle of a frame, lzma's ignores damaged
bytes after a stream. Here every byte must belong to a stream that reached its verified end.
"""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

STEP_BYTES = 2**11  # decompressed at a time: 8 KB of text, or 64 MB of the most repetitive text that .zst can express
LARGEST_BLOCK = 2**18  # of decompressed content
LARGEST_WINDOW = 2**31  # bytes that a file may need: those written with zstd --long=31 do, xz -9 needs 2**26
LARGEST_INNER_WINDOW = 2**27  # of a compressed file within another or within an archive, of which there may be several


class DamagedShard(ValueError):
    """A raw shard that cannot be read to its end; the message names the file and the approximate position."""

    @classmethod
    def near(cls, position: str, label: str | Path, reason: object) -> "DamagedShard":
        """Return the error with its message. (An __init__ with three arguments would not survive pickling.)"""
        return cls(f"{label} is damaged near {position}: {reason}; download or create the file again")


def decompressed(
    label: str, blocks: Iterator[bytes], suffix: str, *, largest_window: int = LARGEST_WINDOW
) -> Iterator[bytes]:
    """Yield the decompressed content of `blocks`, of a file with this suffix; DamagedShard, possibly at the end.

    Consecutive streams, members or frames are one content. ValueError for one that needs more memory than
    `largest_window`, or a dictionary.
    """
    stream, num_finished, offset = None, 0, 0
    for block in blocks:
        position, offset = offset, offset + len(block)
        while block := _without_padding(suffix, block, stream, num_finished):
            stream = stream or DECOMPRESSORS[suffix](largest_window)
            step, block = block[:STEP_BYTES], block[STEP_BYTES:]
            try:
                content = stream.decompress(step)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError) as error:
                raise _error(label, f"byte {position}", error, largest_window) from error
            yield from _in_blocks(content)
            position += len(step)
            if stream.eof:
                position -= len(stream.unused_data)
                block, stream, num_finished = stream.unused_data + block, None, num_finished + 1
    if stream is not None or num_finished == 0:
        raise DamagedShard.near(f"byte {offset}", label, "the file ends before its content does")


def _in_blocks(content: bytes) -> Iterator[bytes]:
    """Divide what is much longer than usual, because it is repetitive; its readers need more memory than it has."""
    starts = range(0, len(content), LARGEST_BLOCK)
    return iter([content]) if len(starts) <= 1 else (content[start : start + LARGEST_BLOCK] for start in starts)


def _error(label: str, position: str, error: Exception, largest_window: int) -> ValueError:
    if "memory" in str(error).lower():
        return ValueError(
            f"{label} needs more than {largest_window // 2**20} MiB of memory to be decompressed; compress it again "
            "with a smaller window, such as that of zstd -19 or xz -9"
        )
    if "dictionary mismatch" in str(error).lower():
        return ValueError(f"{label} needs the dictionary that it was compressed with; compress it again without one")
    return DamagedShard.near(position, label, error)


def _without_padding(suffix: str, block: bytes, stream: object, num_finished: int) -> bytes:
    """Remove the zero bytes that .xz allows between and after its streams."""
    return block.lstrip(b"\0") if suffix == ".xz" and stream is None and num_finished > 0 else block


# Each is called with the largest window. gzip's and bzip2's are at most 900 KB.
DECOMPRESSORS = {
    ".gz": lambda _: zlib.decompressobj(wbits=31),  # 31: gzip's header and checksum
    ".bz2": lambda _: bz2.BZ2Decompressor(),
    ".xz": lambda window: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=window),
    ".zst": lambda window: zstandard.ZstdDecompressor(max_window_size=window).decompressobj(),
}
