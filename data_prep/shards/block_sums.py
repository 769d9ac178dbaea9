"""The .sum of a token shard: a small digest of every small block of its .bin, and digests of those digests.

It holds the low 32 bits of the xxh3-64 of each block, as <u4, in pages of 1,024, and then the xxh3-64 of each page, as
<u8. The manifest holds the digest of these. So to check one block anywhere, a reader needs a page of 4 KiB, which
covers 4 MiB of tokens, and once per shard a few KiB.
"""

import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

# A page of memory and of most disks: a sequence of 1,024 tokens of 2 bytes touches one or two of them.
BLOCK_BYTES = 2**12
PAGE_BLOCKS = 2**10  # digests per page: 4 KiB
_LOW = 2**32 - 1
_RECENT_PAGES = 2**11  # per process: 8 MiB of digests, for 8 GiB of tokens


class BlockHasher:
    """Digests the blocks of a file that is written piece by piece."""

    def __init__(self, block_bytes: int):
        self.block_bytes = block_bytes
        self._digests = bytearray()
        self._rest = b""  # of a block that is incomplete so far

    def update(self, content: bytes) -> None:
        content = self._rest + content
        complete = len(content) // self.block_bytes * self.block_bytes
        self._digests += block_digests(memoryview(content)[:complete], self.block_bytes)
        self._rest = content[complete:]

    def finish(self) -> tuple[bytes, str]:
        """End the file; return the content of its .sum, and the digest of that for the manifest."""
        digests = bytes(self._digests + block_digests(self._rest, self.block_bytes))
        pages = [digests[first : first + 4 * PAGE_BLOCKS] for first in range(0, len(digests), 4 * PAGE_BLOCKS)]
        roots = b"".join(xxhash.xxh3_64_intdigest(page).to_bytes(8, "little") for page in pages)
        return digests + roots, xxhash.xxh3_128_hexdigest(roots)


class BlockSums:
    """The digests of one .sum; a page of them is read, and compared with its own digest, when it is needed.

    FileNotFoundError if the file is missing, ValueError, which names it, if it is not what was written.
    """

    def __init__(self, path: Path, *, num_blocks: int, xxh3: str):
        self.path, self.num_blocks = path, num_blocks
        roots = self._read(4 * num_blocks, 8 * -(-num_blocks // PAGE_BLOCKS))
        self._compare(xxhash.xxh3_128_hexdigest(roots), xxh3)
        self._roots = np.frombuffer(roots, dtype="<u8")

    def digests(self, first: int, last: int) -> bytes:
        """Return the digests of the blocks first..last-1, <u4."""
        page, offset = divmod(first, PAGE_BLOCKS)
        num_pages = -(-(offset + last - first) // PAGE_BLOCKS)
        content = b"".join([_recent_page(self, page + n) for n in range(num_pages)])
        return content[4 * offset : 4 * (offset + last - first)]

    def read_page(self, page: int) -> bytes:
        first = page * PAGE_BLOCKS
        content = self._read(4 * first, 4 * min(PAGE_BLOCKS, self.num_blocks - first))
        self._compare(f"{xxhash.xxh3_64_intdigest(content):016x}", f"{self._roots[page]:016x}")
        return content

    def _read(self, start: int, num_bytes: int) -> bytes:
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(num_bytes)

    def _compare(self, found: str, written: str) -> None:
        if found != written:
            raise ValueError(
                f"{self.path} is damaged: its digests have digest {found} but were written with {written}; "
                "copy it again or tokenize again"
            )


@lru_cache(maxsize=_RECENT_PAGES)
def _recent_page(sums: BlockSums, page: int) -> bytes:
    return sums.read_page(page)


def block_digests(content: bytes | memoryview, block_bytes: int) -> bytes:
    """Return the digest of each block of `content`, <u4; it starts with a block, and the last one may be shorter."""
    digest, content = xxhash.xxh3_64_intdigest, memoryview(content)
    starts = range(0, len(content), block_bytes)
    return struct.pack(f"<{len(starts)}I", *[digest(content[start : start + block_bytes]) & _LOW for start in starts])


def sums_size(num_blocks: int) -> int:
    """Return the number of bytes of a .sum."""
    return 4 * num_blocks + 8 * -(-num_blocks // PAGE_BLOCKS)
