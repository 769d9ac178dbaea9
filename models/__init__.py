"""The network, written as for one device, in one flat folder because its files travel with the weights."""
