"""One process that has imported an app, and what becomes of the workers that are forked from it."""
