"""From counts to a route table, and the file that holds it."""
