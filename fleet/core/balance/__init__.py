"""One budget of slots, divided by weight."""
