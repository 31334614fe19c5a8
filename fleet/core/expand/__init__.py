"""A manifest and the facts of this machine become the desired replicas."""
