"""The loop of a worker: fetch, start, finish, acknowledge."""
