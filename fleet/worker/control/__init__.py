"""Remote control and events of a worker, in Celery's words."""
