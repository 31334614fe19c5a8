"""supervisord as a backend."""
