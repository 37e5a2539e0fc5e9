"""A campaign of faults against a real deployment, judged by an independent oracle: ``python -m benchmarks.chaos``."""
