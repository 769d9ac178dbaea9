"""The measurements of a run, its log and its plots."""
