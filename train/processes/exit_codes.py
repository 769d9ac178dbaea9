"""Exit codes of a run; docs/reliability.md lists what to do about each."""

EXIT_DONE = 0
EXIT_CRASHED = 1  # also Python's own
EXIT_BAD_INPUT = 2
EXIT_NONFINITE = 3
EXIT_NOT_SAVED = 4
EXIT_HANG = 5
EXIT_LOST_RANK = 6
EXIT_STOPPED = 75  # sysexits' "temporary failure": the same command resumes the run
