"""Checkpoints that exist whole or not at all, and resume on any number of ranks."""
