"""`--batch` of `retag` and of a backfill, through the real stream: asked in a batch, paid for half, in the results."""

import threading
from pathlib import Path

import pytest

from tagbus.stream.app.service import Service
from tagbus.stream.config import CascadeSettings, LlmSettings
from tagbus.stream.contract.codec import decode_tagged, encode_record
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.kafka.message import record_of
from tagbus.stream.llm.batch.answers import JUDGED
from tests.cli.conftest import tagbus
from tests.cli.harness import Cli
from tests.cli.records.test_publish import settings as settings_of
from tests.conftest import Broker
from tests.llm.batch_server import BatchServer
from tests.llm.scripted import Server, serving
from tests.releases import Bus
from tests.support import Layout, consume_all, create_topics, produce, unique, wait_until

pytestmark = pytest.mark.kafka
__all__ = ["tagbus"]

TAGS = [Tag(id="bees", name="Honey bees"), Tag(id="chess", name="Chess openings")]
CONTENTS = [Content(id=f"c{number}", title=f"Honey bees in winter {number}") for number in range(3)]


def variables(bus: Bus, server: Server) -> dict[str, str]:
    """Every content is asked about: all are of the control share."""
    return settings_of(Broker(bus.address, ""), bus.names) | {
        "LLM__URL": server.url,
        "LLM__API_KEY": "secret",
        "LLM__MODEL": "m",
        "LLM__BACKEND": "stated",
        "CASCADE__CONTROL": "1",
        "BUDGET__PRICE_IN": "2",
        "BUDGET__PRICE_OUT": "8",
        "KNOWLEDGE__SEGMENTS": "0",
    }


def filled(kafka: Broker) -> Bus:
    bus = Bus.made(kafka.address)
    for topic, events in (("tags", TAGS), ("content", CONTENTS)):
        records = [encode_record(one) for one in events]  # type: ignore[arg-type]
        produce(bus.address, bus.names[topic], [(record.key, record.value, []) for record in records])
    return bus


def results(bus: Bus, topic: str) -> list[TaggedContent]:
    found = [decode_tagged(record_of(message)) for message in consume_all(bus.address, topic)]
    return [one for one in found if isinstance(one, TaggedContent)]


def judged(found: list[TaggedContent]) -> dict[str, float]:
    """The judge's probability of the tag bees, of results that have one."""
    return {
        one.id: tag.evidence.scores["judge"]
        for one in found
        for tag in one.tags
        if tag.id == "bees" and "judge" in tag.evidence.scores
    }


def test_retag_asks_in_a_batch_and_workers_take_what_it_answered(kafka: Broker, tagbus: Cli, tmp_path: Path) -> None:
    bus, batches = filled(kafka), BatchServer()
    with serving(batches) as server:
        given = variables(bus, server)
        answer = tagbus("retag", "--since", "1h", "--batch", tmp_path, settings=given)
        assert answer.one_line().startswith("tagbus: --batch costs money, expected --send with it")
        call = ("retag", "--since", "1h", "--send", "--batch", tmp_path, "--every", "0.01")
        answer = tagbus(*call, settings=given)
        assert answer.code == 0, answer.err
        assert "3 of 3 contents are asked about, in 1 parts" in answer.err
        assert answer.err.splitlines()[-1].startswith("sent again: 3 (since ")
        assert answer.err.strip().endswith("3 answered by the batch")
        again = tagbus(*call, settings=given)
        assert "its 3 contents were sent already; expected another folder" in again.one_line()
        assert len(batches.requests()) == 3
        sent = [one for one in consume_all(bus.address, bus.names["content"]) if JUDGED in dict(one.headers() or [])]
        assert {one.key() for one in sent} == {b"c0", b"c1", b"c2"}

        llm = LlmSettings(url=server.url, api_key="secret", model="m", backend="stated")  # type: ignore[arg-type]
        work = bus.settings.model_copy(
            update={
                "llm": llm,
                "cascade": CascadeSettings(control=1.0),
                "knowledge": bus.settings.knowledge.model_copy(update={"segments": 0}),
            }
        )
        service = Service(work)
        working = threading.Thread(target=service.worker.run, daemon=True)
        working.start()
        try:
            wait_until(lambda: len(judged(results(bus, bus.names["tagged"]))) == 3, 120, "three judged contents")
        finally:
            service.worker.stop()
            working.join(120)
    # The server has no endpoint but batches: what was judged is what the batch answered.
    assert set(judged(results(bus, bus.names["tagged"])).values()) == {0.8}
    paid = {one.id: one.usage for one in results(bus, bus.names["tagged"]) if one.usage and one.usage.tokens_in}
    assert {usage.cost for usage in paid.values()} == {(150 * 2 + 1 * 8) / 1e6 / 2}


def test_a_backfill_asks_in_a_batch_before_it_begins(kafka: Broker, tagbus: Cli, tmp_path: Path) -> None:
    bus, batches = filled(kafka), BatchServer()
    output = unique("again")
    compact: Layout = (6, {"cleanup.policy": "compact"})
    own = {"": 6, ".dlq": 6, ".feedback": 6, ".versions": compact, ".exemplars": compact}
    create_topics(bus.address, {f"{output}{suffix}": layout for suffix, layout in own.items()})
    with serving(batches) as server:
        call = ("run", "--from", "earliest", "--group", unique("g"), "--output", output, "--batch", tmp_path)
        answer = tagbus(*call, "--every", "0.01", settings=variables(bus, server) | {"HEALTH__PORT": "0"})
    assert answer.code == 0, answer.err
    assert judged(results(bus, output)) == {"c0": 0.8, "c1": 0.8, "c2": 0.8}
    assert len(batches.requests()) == 3
    assert not [one for one in server.requests if "chat" in one.path]


def test_batch_is_for_backfills_alone(tagbus: Cli, tmp_path: Path) -> None:
    answer = tagbus("run", "--batch", tmp_path)
    assert answer.one_line().startswith("tagbus: --batch is for a backfill, expected --from, --group and --output")
