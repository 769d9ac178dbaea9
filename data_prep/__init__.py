"""Everything before training, without torch: the commands are here, and their parts in the folders below."""
