"""The bus: content in from Kafka, results, dead letters and offsets out to Kafka, each content once.

Three threads. The poll thread consumes and serves the group (`consume`), the loop thread runs the tagger on several
batches at once (`triage`), the publish thread ends each batch with a transaction (`publish`). What is under way is in
one place, behind one lock (`flight`); `worker` wires them together.
"""
