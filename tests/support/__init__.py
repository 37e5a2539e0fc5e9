"""What several kinds of tests share: a real Ray head of their own, and waiting for a condition."""
