"""Which entries of the cache matter."""
