"""The speed of every stage of data preparation on one core."""
