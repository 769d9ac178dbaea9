"""Files that appear complete or not at all, and record their own digest."""
