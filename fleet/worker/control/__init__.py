"""Remote control and events of a worker, as Celery has them."""
