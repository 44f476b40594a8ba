"""Kafka as tagbus uses it: client settings, errors in our own tree, records in and out of messages."""
