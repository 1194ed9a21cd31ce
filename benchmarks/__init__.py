"""Measures the data path in one run against named floors: the machines are noisy, so only ratios count."""
