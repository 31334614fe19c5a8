"""The controller of a fleet in a cluster: it decides as on a host, and KEDA asks it how many slots each group has."""
