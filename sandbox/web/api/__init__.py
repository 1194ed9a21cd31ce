"""The REST API, a file a subject. Each call is a few lines that read the request and ask the rooms around."""
