"""Values that every process uses: tasks, specs, settings, errors. It imports no other package of SeedCore."""
