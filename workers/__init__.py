"""Background processes: the Celery app, the job runner, the dispatcher, and the sweep."""
