"""What Scale sends and what it takes, as values. Pure, but for client.py: no Flask, no database, no Celery."""
