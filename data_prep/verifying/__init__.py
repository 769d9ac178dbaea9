"""Checks of folders of token shards, and of the raw text that they were made of, by many processes."""
