"""Values that every process knows: tasks, specs, settings, errors. Imports nothing of the other packages."""
