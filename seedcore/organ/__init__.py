"""Runs in the process of an organ: its agents, the tasks that wait for them, and the lease to do work."""
