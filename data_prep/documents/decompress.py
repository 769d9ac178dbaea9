"""Decompress .gz, .xz and .zst block by block, and refuse files that are cut short or damaged.

The libraries' own readers are not strict: zstandard's ends silently in the middle of a frame, lzma's ignores damaged
bytes after a stream. Here every byte must belong to a stream that reached its verified end.
"""

import lzma
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import zstandard

STEP_BYTES = 2**11  # decompressed at a time: 8 KB of text, or 64 MB of the most repetitive text that .zst can express
LARGEST_ZSTD_WINDOW = 2**31  # files written with zstd --long=31


class DamagedShard(ValueError):
    """A raw shard that cannot be read to its end; the message names the file and the approximate position."""

    @classmethod
    def near(cls, position: str, label: str | Path, reason: object) -> "DamagedShard":
        """Return the error with its message. (An __init__ with three arguments would not survive pickling.)"""
        return cls(f"{label} is damaged near {position}: {reason}; download or create the file again")


def decompressed(label: str, blocks: Iterator[bytes], suffix: str) -> Iterator[bytes]:
    """Yield the decompressed content of `blocks`, of a file with this suffix; DamagedShard, possibly at the end.

    Consecutive streams, members or frames are one content.
    """
    stream, num_finished, offset = None, 0, 0
    for block in blocks:
        position, offset = offset, offset + len(block)
        while block := _without_padding(suffix, block, stream, num_finished):
            stream = stream or DECOMPRESSORS[suffix]()
            step, block = block[:STEP_BYTES], block[STEP_BYTES:]
            try:
                yield stream.decompress(step)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise DamagedShard.near(f"byte {position}", label, error) from error
            position += len(step)
            if stream.eof:
                position -= len(stream.unused_data)
                block, stream, num_finished = stream.unused_data + block, None, num_finished + 1
    if stream is not None or num_finished == 0:
        raise DamagedShard.near(f"byte {offset}", label, "the file ends before its content does")


def _without_padding(suffix: str, block: bytes, stream: object, num_finished: int) -> bytes:
    """Remove the zero bytes that .xz allows between and after its streams."""
    return block.lstrip(b"\0") if suffix == ".xz" and stream is None and num_finished > 0 else block


DECOMPRESSORS = {
    ".gz": partial(zlib.decompressobj, wbits=31),  # 31: gzip's header and checksum
    ".xz": partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ),
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=LARGEST_ZSTD_WINDOW).decompressobj(),
}
