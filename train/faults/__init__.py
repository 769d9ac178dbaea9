"""What a run does about non-finite values, hanging ranks and slow ranks."""
