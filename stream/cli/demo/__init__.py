"""`tagbus demo`: the command, its scenes, and its judge."""
