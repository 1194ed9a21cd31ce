"""The background: Celery as the dispatcher, one function a kind of job, and the sweep that rings for what was missed."""
