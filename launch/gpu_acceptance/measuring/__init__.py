"""What the parts of the acceptance share: their setting, their figures, engines to train, and observers."""
