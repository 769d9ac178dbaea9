"""The benchmark of the hash layer and of whole training steps beside their alternatives."""
