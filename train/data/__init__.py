"""Which sequences and route tables a run reads, and in which order."""
