"""The REST API, `/api/v1`. One file a resource; resources.py is their registry."""
