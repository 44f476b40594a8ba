"""Servers on this machine for the demo, `make triton`, the benchmark and the tests.

`mock.MockCluster` is part of confluent-kafka and starts in milliseconds; it is at least once only. `apache.ApacheKafka`
is real Apache Kafka, from Maven Central: exactly-once claims are tested on it.
"""
