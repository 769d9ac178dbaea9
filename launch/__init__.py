"""What a person types; a command with parts of its own has a folder."""
