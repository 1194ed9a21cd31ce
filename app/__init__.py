"""The web process and the commands: Flask around the callback endpoint, the REST API and `weighbridge …`."""
