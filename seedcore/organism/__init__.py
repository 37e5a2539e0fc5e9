"""The organism: organs (actor processes), the agents inside them, and the manager that keeps them alive."""
