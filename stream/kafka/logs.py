"""librdkafka's log lines, and ours about errors that it recovers from."""

import logging

from confluent_kafka import KafkaError

from tagbus.stream.errors import TagbusError

# While brokers are down librdkafka retries and reports ten times a second: log one line of each kind per interval.
REPEAT_SECONDS = 10.0

log = logging.getLogger(__name__)
# A command without logging stays silent: a final failure surfaces as an error of the call.
log.addHandler(logging.NullHandler())

# For clients of interactive commands, and for a worker's secondary clients, which would repeat the same lines.
QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class RateLimit(logging.Filter):
    """Passes one warning of each kind per REPEAT_SECONDS. librdkafka's kind is its first argument (FAIL...)."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not isinstance(record.args, tuple) or not record.args:
            return True
        kind = (record.levelno, str(record.args[0])[:40])
        if record.created - self._last.get(kind, 0.0) < REPEAT_SECONDS:
            return False
        self._last[kind] = record.created
        return True


log.addFilter(RateLimit())


def report(error: KafkaError | TagbusError) -> None:
    """Log an error that librdkafka recovers from, or after which the call is repeated."""
    if isinstance(error, KafkaError):
        log.warning("kafka: error=%s reason=%s", error.name(), error.str())
    else:
        log.warning("kafka: %s", error)
