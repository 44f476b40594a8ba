"""librdkafka's log lines, and ours about the errors that it recovers from by itself."""

import logging

from confluent_kafka import KafkaError

from tagbus.stream.errors import TagbusError

# While brokers are away librdkafka tries and reports ten times a second: one line of a kind within so long.
REPEAT_SECONDS = 10.0

log = logging.getLogger(__name__)
# A command that sets up no logging stays silent: what fails in the end is an error of the call.
log.addHandler(logging.NullHandler())

# For clients that a person waits for, and for those beside a worker's own, which would say the same once more.
QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class RateLimit(logging.Filter):
    """Lets warnings of one kind through once in REPEAT_SECONDS. librdkafka's kind is its first argument (FAIL...)."""

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
    """Log an error that librdkafka recovers from by itself, or after which the same call is made again."""
    if isinstance(error, KafkaError):
        log.warning("kafka: error=%s reason=%s", error.name(), error.str())
    else:
        log.warning("kafka: %s", error)
