"""Files and folders named by settings and commands."""
