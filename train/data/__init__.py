"""The sequences and route tables that a run reads, and their order."""
