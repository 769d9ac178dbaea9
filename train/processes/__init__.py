"""This process among the others: ranks, process group, agreement, signals and exit codes."""
