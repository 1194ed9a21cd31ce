"""The workflow language: what follows from a result. Pure: files and values in, follow-ups out.

Stands behind a whole result, before anything is written: `load` reads the files, `view` puts one result into
words that a workflow can ask for, `plan` decides which tasks it wants.
"""
