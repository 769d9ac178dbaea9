"""The parts of the acceptance, each a module whose measure(setting) returns figures."""
