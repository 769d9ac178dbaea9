"""Trains many recipes under equal conditions and compares them."""
