"""Commands over the records of topics: publish, read and replay."""
