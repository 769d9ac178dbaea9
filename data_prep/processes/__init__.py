"""The processes that share a command's work, and how a command ends."""
