"""The contract: the events on the topics, their encoding, and the documents that describe them."""
