"""How many messages wait in the queues, and for how long."""
