"""`tagbus acceptance`: test the guarantees of tagbus in a user's cluster, in separate topics and collections."""
