"""`tagbus acceptance`: what tagbus promises, tried in a user's own cluster, in topics and collections of its own."""
