"""The layers that the benchmark times, and the check that all compute the same."""
