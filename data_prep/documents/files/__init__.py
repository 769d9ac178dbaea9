"""Files of raw text: found, cut at byte ranges, decompressed and unpacked, as streams of bytes."""
