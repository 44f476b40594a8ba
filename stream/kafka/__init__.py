"""Kafka as tagbus uses it. Nothing above this package sets a client's properties.

clients    every kind of client and what each sets, in one table
errors     librdkafka's errors in our own tree: `classify`, and `map_kafka_errors` around calls
rights     which right is missing, in words
access     asking the broker: missing rights, and why nobody is let in
logs       what librdkafka logs
message    a message of the client as a record of the contract
metadata   partitions of a topic, where they begin and end
reader     TopicReader: topics read in no group, to their ends and then on
follower   the same for asyncio, in a thread of its own
ranges     a fixed part of a topic, read once
writer     TopicWriter: records to one topic, each one confirmed
"""
