"""The model of a run inside DeepSpeed's engine."""
