"""The layers that the benchmark times, and the check that they compute the same."""
