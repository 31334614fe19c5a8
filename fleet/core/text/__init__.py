"""Numbers and values as text, and "did you mean"."""
