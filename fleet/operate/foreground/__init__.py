"""A fleet that lives as long as one process: the entry point of a container and of a service."""
