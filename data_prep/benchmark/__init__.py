"""How fast each stage of data preparation is on one core."""
