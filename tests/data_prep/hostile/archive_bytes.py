"""Archives and compressed files that no honest program writes, as bytes."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib

import pyarrow
import pyarrow.parquet
import zstandard

END_MARK = bytes(1024)
TEXT = b"a line of text\n\n" * 100


def member(name: str, content: bytes = b"one", **fields: object) -> bytes:
    """Return a member of an archive, with other fields of its header than its content would have."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def extended(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    """Return an extended header, which may say that it is longer than it is."""
    return member("header", content, type=kind, size=len(content) if size is None else size)


def pax(*records: bytes) -> bytes:
    return extended(tarfile.XHDTYPE, b"".join(records))


def broken_checksum() -> bytes:
    header = bytearray(member("a.txt"))
    header[150] ^= 1
    return bytes(header) + END_MARK


def nested(levels: int) -> bytes:
    content, name = b"one", "a.txt"
    for level in range(levels):
        content, name = member(name, content) + END_MARK, f"{level}.tar"
    return content


def many_members(number: int) -> bytes:
    return gzip.compress(b"".join(member(f"{i}.txt", b"") for i in range(number)) + END_MARK, 1)


def repeated_zst(block: bytes, times: int) -> bytes:
    """Return a short file of a long text."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return b"".join(compressor.compress(block) for _ in range(times)) + compressor.flush()


def zst_with_dictionary() -> bytes:
    dictionary = zstandard.train_dictionary(1000, [f"line {i} of a text".encode() * 3 for i in range(2000)])
    return zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT)


def zst_with_window(log: int) -> bytes:
    """Return the header of a frame that says how much of its text must stay in memory."""
    return struct.pack("<IBB", 0xFD2FB528, 0, (log - 10) << 3) + bytes(20)


def xz_with_dictionary_of_4_gib() -> bytes:
    content = bytearray(lzma.compress(TEXT))
    content[16] = 40  # of the block's header, which begins at byte 12: 40 is the largest dictionary
    content[20:24] = struct.pack("<I", zlib.crc32(content[12:20]))
    return bytes(content)


def flipped(content: bytes) -> bytes:
    """Flip a bit in the middle."""
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 4
    return bytes(damaged)


def parquet_of(text: str, rows: int, **options: object) -> bytes:
    """Return a short .parquet of equal rows: its dictionary holds the text once."""
    content = io.BytesIO()
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [text])
    table = pyarrow.table({"text": column})
    pyarrow.parquet.write_table(table, content, compression="zstd", store_schema=False, **options)
    return content.getvalue()


def varied() -> bytes:
    return "".join(f"document {i * i}\n\n" for i in range(500)).encode()


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
