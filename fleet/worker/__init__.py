"""The supervised process: it takes tasks from a broker and runs them on a pool."""
