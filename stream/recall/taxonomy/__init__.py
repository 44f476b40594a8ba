"""The taxonomy as results use it: tags in force, successors of retired tags, and broader tags."""
