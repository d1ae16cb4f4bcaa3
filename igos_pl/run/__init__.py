"""A run: its folder, its processes, and how it ends."""
