"""The app whose tasks a worker runs: Celery's or a registry."""
