"""Commands over the records of topics: publish, read, and send through again."""
