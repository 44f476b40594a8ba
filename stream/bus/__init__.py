"""The bus: records in from Kafka; results, dead letters and offsets out, each record once.

Three threads. The poll thread reads and serves the consumer group (`consume`). The loop thread runs the processor on
several batches at once (`process`). The publish thread ends batches with a transaction (`publish`). Batches in flight
are held in one place, behind one lock (`in_flight`); `worker` wires the threads together.
"""
