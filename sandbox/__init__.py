"""A stand-in for Scale: its REST API, its annotators and auditors, its callbacks. It stands where a callback begins."""
