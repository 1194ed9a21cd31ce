"""A simulation of Scale for development: its REST API, its annotators and reviewers, and its callbacks."""
