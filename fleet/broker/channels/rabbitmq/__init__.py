"""The channel for RabbitMQ."""
