"""Benchmarks of the data path. Each compares with a floor in the same run, because only ratios hold on noisy machines."""
