"""One task on its way through a worker, as values."""
