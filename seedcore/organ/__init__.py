"""Code of an organ's process: its agents, its task queue, and its lease."""
