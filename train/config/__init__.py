"""Every setting of a run, checked before any process group exists."""
