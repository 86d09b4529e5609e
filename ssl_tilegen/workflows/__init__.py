"""The commands: each takes its settings, does all the work and returns a report."""
