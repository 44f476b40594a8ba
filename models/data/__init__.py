"""What training reads: contents whose tags are known, and the forms in which they come."""
