"""How a route table loads the experts on tokens that it was not built from."""
