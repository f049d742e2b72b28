"""Plans against the schedules of the literature, at equal evaluations."""
