"""A training run: its main steps are here, and their parts in the folders below."""
