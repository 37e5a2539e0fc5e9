"""Benchmarks as ratios to raw Ray, measured in one run on one Ray: ``make bench``."""
