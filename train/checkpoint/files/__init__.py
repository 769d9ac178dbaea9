"""The files inside a checkpoint: their bytes and digests, and the tensors read back in any slices."""
