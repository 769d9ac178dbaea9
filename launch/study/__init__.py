"""Trains recipes under equal conditions and compares them."""
