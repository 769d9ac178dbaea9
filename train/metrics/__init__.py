"""What a run measures, logs and plots."""
