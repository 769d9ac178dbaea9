"""The stages of the one command, from a corpus to everything that training needs, and its report."""
