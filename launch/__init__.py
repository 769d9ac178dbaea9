"""The commands that a person types; a command with several parts has a folder."""
