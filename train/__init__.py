"""A training run: the files here are its steps in order, and the rooms below hold their parts."""
