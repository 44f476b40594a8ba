"""Files and folders that the settings and commands name."""
