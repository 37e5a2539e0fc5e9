"""Helpers that several kinds of tests share, such as a real Ray head and waiting for a condition."""
