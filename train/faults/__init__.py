"""The reactions of a run to non-finite values, hanging ranks and slow ranks."""
