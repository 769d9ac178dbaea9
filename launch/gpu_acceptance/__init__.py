"""The acceptance of a GPU: one command that checks everything which only a GPU can show, and reports it."""
