"""The keys that hash layers hash, and how often each occurs in a corpus."""
