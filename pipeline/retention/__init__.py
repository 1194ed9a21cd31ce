"""Keeping and forgetting: purge bodies, files and the content of finished tasks, and keep what recognises late callbacks."""
