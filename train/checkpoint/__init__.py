"""Checkpoints that exist whole or not at all, and from which a run resumes on any number of ranks."""
