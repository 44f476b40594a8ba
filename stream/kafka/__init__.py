"""Kafka as tagbus uses it. No other package sets client properties.

clients    every kind of client and what each sets, in one table
errors     librdkafka's errors mapped to ours: `classify`, and `map_kafka_errors` around calls
rights     explanations of missing rights
access     access checks: missing rights, and rejected credentials
logs       librdkafka's log lines
message    messages to contract records
limits     the maximum size of a record
metadata   partitions of a topic and their watermarks
layout     the topics that tagbus needs, and how existing ones differ
topics     inspect, create and change topics
reader     TopicReader: reads topics to their ends and follows them, without a group
follower   the same for asyncio, in its own thread
ranges     a bounded part of a topic, read once
writer     TopicWriter: writes to one topic, each record confirmed
"""
