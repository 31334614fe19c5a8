"""Where replicas live: one package or module per backend behind the door in ``base``."""
