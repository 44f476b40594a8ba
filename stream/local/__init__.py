"""Servers that run on this machine, for the demo, `make triton`, the benchmark and the tests.

`mock.MockCluster` is inside confluent-kafka and starts in milliseconds: at least once only.
`apache.ApacheKafka` is Apache Kafka itself, from Maven Central: what exactly-once claims are measured on.
"""
