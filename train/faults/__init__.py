"""What a run does about NaN, hanging ranks and slow ranks."""
