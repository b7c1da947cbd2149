"""MetaNTK-NAS."""
