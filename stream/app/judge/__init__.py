"""The judge in the composition root: opened, paid for, fitted."""
