"""The commands that a person types; a command of several files has a folder of its own."""
