"""RDF, read statement by statement, and what its forms may not hold."""
