"""What runs replicas: one package or module per backend, with the interface in ``base``."""
