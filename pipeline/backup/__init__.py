"""Backup and restore: the rows of one moment and every content that they refer to, in one portable form."""
