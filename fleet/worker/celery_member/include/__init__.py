"""The folder that is put on the path of Celery's worker; it holds the one module that Celery is told to import."""
