"""Moving the groups of a fleet between a host and a cluster, one by one, inside one budget. PURE."""
