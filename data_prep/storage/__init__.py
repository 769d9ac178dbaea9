"""Files that appear whole or not at all, and record their own digest."""
