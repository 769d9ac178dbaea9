"""Everything before training, without torch: the commands stand here, their parts in the rooms below."""
