"""Experts spread over ranks, applied to the model from outside."""
