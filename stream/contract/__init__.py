"""The contract: what goes over the topics, how it is written there, and the documents that describe it."""
