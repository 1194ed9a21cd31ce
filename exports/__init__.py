"""Datasets out: one file a format, rows in, files out."""
