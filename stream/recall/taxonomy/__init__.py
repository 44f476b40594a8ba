"""The taxonomy as results see it: which tags are in force, what replaced others, and what is broader."""
