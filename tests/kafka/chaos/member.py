"""A worker of the fleet as a process: settings from the environment, a tagger that takes time and refuses some.

    python tests/kafka/chaos/member.py

It prints `ready` when it is, and `aborted N` whenever that count of its metrics has grown: a process that is killed
takes its metrics along.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from prometheus_client import REGISTRY

from tagbus.stream import config
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import FieldError, TagbusError, Untaggable
from tagbus.stream.tagger import Failure

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))

from tests.bus.taggers import Uneven
from tests.kafka.chaos.load import CRASHES, REFUSED

BATCH_SECONDS = (0.02, 0.06)


class Moody(Uneven):
    """Takes time, refuses contents marked for it, and fails like a bug on a batch with a content marked for that."""

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        results = await super().tag(contents)
        if any(CRASHES in content.text for content in contents):
            raise ZeroDivisionError("a bug in the tagger")
        error = Untaggable("encode", (FieldError("text", REFUSED, "a text that the encoder takes"),))
        return [
            Failure(content.id, error) if REFUSED in content.text else result
            for content, result in zip(contents, results, strict=True)
        ]


def tell(worker: Worker) -> None:
    """Print what changes, until the process ends."""
    ready, aborted, parent = False, 0.0, os.getppid()
    while True:
        if os.getppid() != parent:
            # Its parent process has ended, and the brokers with it.
            os._exit(1)
        if not ready and worker.ready():
            ready = True
            # In one write: the log goes to the same file, and print makes two.
            os.write(sys.stdout.fileno(), b"ready\n")
        now = REGISTRY.get_sample_value("tagbus_transactions_total", {"outcome": "aborted"}) or 0.0
        if now > aborted:
            aborted = now
            print(f"aborted {aborted:.0f}", flush=True)
        time.sleep(0.02)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = config.load()
    worker = Worker(settings, TagProcessor(settings, Moody(*BATCH_SECONDS)))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=tell, args=[worker], daemon=True).start()
    try:
        worker.run()
    except TagbusError as error:
        logging.error("%s: %s", type(error).__name__, error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
