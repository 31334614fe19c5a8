"""Every touch of the broker outside the worker loop."""
