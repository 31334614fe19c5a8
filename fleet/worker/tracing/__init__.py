"""Spans of the tasks that a worker runs: made in the slots, so that the loop does no more than hand over two times."""
