"""Moving the groups of a fleet between this host and a cluster."""
