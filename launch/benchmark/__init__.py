"""Times the hash layer and whole training steps beside their alternatives."""
