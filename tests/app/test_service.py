"""A memory that stops answering under a whole worker: it waits, reports not ready, and resumes."""

import math
import threading
from functools import partial

import pytest

from tagbus.stream.app.releases import manager as manager_module
from tagbus.stream.app.service import Service
from tagbus.stream.config import MemorySettings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.memory import Carried
from tagbus.stream.memory import open as memory
from tests.bus.harness import event, exactly_once, until_all_out
from tests.conftest import Broker
from tests.index.parts import Failing
from tests.releases import Bus
from tests.support import produce, wait_until

pytestmark = pytest.mark.kafka


def test_a_worker_outlives_its_store(kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a store that fails after the gate opened, the worker keeps its partitions, is live and not ready, and tags
    each content once when the store is back."""
    stores: dict[str, Failing] = {}

    async def opened(_: MemorySettings, kind: str, release: str, dimension: int, carried: Carried) -> Failing:
        stores[kind] = Failing(release, dimension, carried)
        return stores[kind]

    monkeypatch.setattr(memory, "open_store", opened)
    monkeypatch.setattr(manager_module, "REPORT_SECONDS", 0.01)
    monkeypatch.setattr("tagbus.stream.app.probe.PROBE_SECONDS", 0.5)
    bus = Bus.made(kafka.address)
    bees = encode_record(Tag(id="bees", name="beekeeping"))
    produce(bus.address, bus.names["tags"], [(bees.key, bees.value, [])])
    publish = partial(produce, bus.address, bus.names["content"])
    service = Service(bus.settings)
    working = threading.Thread(target=service.worker.run, daemon=True)
    working.start()
    try:
        publish([(b"before", event("before"), [])])
        until_all_out(bus.address, bus.names, 1)
        wait_until(lambda: not service.not_ready(), 120, "a worker that is ready")

        for store in stores.values():
            store.failures = math.inf
        publish([(b"during", event("during"), [])])
        wait_until(lambda: _says(service, "the store does not answer"), 120, "the store in what is wrong")
        wait_until(lambda: _says(service, "a dependency is down"), 120, "a batch that waits")
        wait_until(lambda: stores["tags"].refused > 10, 120, "an outage of some length")
        assert working.is_alive()
        assert service.worker.alive()

        for store in stores.values():
            store.failures = 0
        until_all_out(bus.address, bus.names, 2)
        wait_until(lambda: not service.not_ready(), 120, "a worker that is ready again")
        exactly_once(bus.address, bus.names)
    finally:
        service.worker.stop()
        working.join(120)
    assert not working.is_alive()


def _says(service: Service, words: str) -> bool:
    return any(words in problem for problem in service.not_ready())
