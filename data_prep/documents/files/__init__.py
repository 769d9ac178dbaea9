"""Files of raw text: found, read block by block, and cut at byte ranges."""
