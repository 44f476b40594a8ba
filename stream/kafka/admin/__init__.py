"""Topics as an administrator sees them: what they should be, what they are, and what holds them up."""
