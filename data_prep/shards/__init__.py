"""The token shard format, and the sequences that are read from it."""
