"""The pure core: values and decisions, without I/O, clock, environment or randomness."""
