"""The channel for Redis and Valkey."""
