"""RDF: read statement by statement, with limits on its forms."""
