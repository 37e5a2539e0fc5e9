"""The routes of the Coordinator: a file for each topic, with the shapes of its answers and examples of them."""
