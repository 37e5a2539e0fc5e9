"""A campaign of faults against a real deployment, judged by an oracle of its own: ``python -m benchmarks.chaos``."""
