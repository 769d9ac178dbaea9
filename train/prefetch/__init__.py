"""Batches and dispatch plans, made on the host ahead of the step that uses them."""
