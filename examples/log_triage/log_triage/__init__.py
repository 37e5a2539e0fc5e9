"""Agents that read log files, group the lines that say the same, and tell what went wrong most."""
