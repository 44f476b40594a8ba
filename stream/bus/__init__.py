"""The bus: records in from Kafka; results, dead letters and offsets out, each record once.

Three threads. The poll thread reads and serves the consumer group (`consume`). The loop thread runs the processor on
several batches concurrently (`process`). The publish thread ends batches with a transaction (`publish`). `in_flight`
holds the batches in flight behind one lock; `worker` wires the threads together.
"""
