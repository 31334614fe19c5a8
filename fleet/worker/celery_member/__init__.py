"""What runs inside Celery's own worker, so that it is a full member of its fleet."""
