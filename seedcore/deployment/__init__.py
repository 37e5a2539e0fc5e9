"""Runs on the head and acts on a cluster: bring the Coordinator up, and keep it up."""
