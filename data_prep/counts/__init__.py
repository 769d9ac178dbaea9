"""What a hash layer hashes, and how often each value occurs in a corpus."""
