"""A worker as a separate process: settings from the environment, a named tagger, exit codes as of `tagbus run`.

    python tests/bus/worker_process.py TAGGER [KILL_AT]

TAGGER is a spec of `taggers.named`: `trivial:0.05`, `random:0.02-0.2`, `down`, `deadly:MARKER`. KILL_AT kills the
process with SIGKILL in the middle of a transaction: `produced`, `offsets` or `commit`. It prints `ready` once it is
ready.
"""

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import confluent_kafka

from tagbus.stream import config
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.errors import TagbusError
from tagbus.stream.kafka import clients

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.bus.taggers import named

KILL_AT = sys.argv[2] if len(sys.argv) > 2 else ""
# The fatal transaction: some have been committed before it.
VICTIM = 2


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(confluent_kafka.Producer):
    """Kills its own process at one step of the third transaction that carries something."""

    transactions = 0

    def begin_transaction(self) -> None:
        super().begin_transaction()
        Mortal.transactions += 1

    def send_offsets_to_transaction(self, positions: Any, group_metadata: Any, timeout: float = -1) -> None:
        if KILL_AT == "produced" and Mortal.transactions > VICTIM:
            super().flush(timeout)
            die()
        super().send_offsets_to_transaction(positions, group_metadata, timeout)
        if KILL_AT == "offsets" and Mortal.transactions > VICTIM:
            super().flush(timeout)
            die()

    def commit_transaction(self, timeout: float = -1) -> None:
        if KILL_AT == "commit" and Mortal.transactions > VICTIM:
            # While the request is in flight: only the broker knows the outcome.
            threading.Timer(0.001, die).start()
        super().commit_transaction(timeout)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if KILL_AT:
        clients.Producer = Mortal  # type: ignore[attr-defined]
    settings = config.load()
    worker = Worker(settings, TagProcessor(settings, named(sys.argv[1])))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())

    def announce() -> None:
        while not worker.ready():
            time.sleep(0.02)
        # In one write: the log goes to the same file, and print makes two.
        os.write(sys.stdout.fileno(), b"ready\n")

    threading.Thread(target=announce, daemon=True).start()
    try:
        worker.run()
    except TagbusError as error:
        logging.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
