"""Start the Coordinator of a cluster and keep it running; runs on the head."""
