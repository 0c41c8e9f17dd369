"""Benchmarks: every script prints ratios between programs of one process."""
