"""Agents that read log files, group similar lines, and report the most frequent errors."""
