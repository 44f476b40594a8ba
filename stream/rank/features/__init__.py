"""Features of candidates: the table that every ranker reads, and named ones that a ranker may read too."""
