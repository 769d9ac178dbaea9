"""The load that a route table gives experts on held-out tokens, in figures and reports."""
