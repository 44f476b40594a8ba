"""Inputs are compared with the source headers of outputs."""

from dataclasses import replace

import pytest

from tagbus.stream.acceptance.ledger import Outcome, compare
from tagbus.stream.config import Settings
from tagbus.stream.local.mock import MockCluster
from tests.support import produce

SET_ASIDE = Outcome(sent=3, tagged=2, dead_lettered=1, lost=0, invented=0, doubled=0)


@pytest.fixture
def settings(mock_kafka: MockCluster) -> Settings:
    for name in ("content", "tagged", "content.dlq"):
        mock_kafka.topic(name, 1)
    return Settings.model_validate({"kafka": {"brokers": mock_kafka.address}})


def put(settings: Settings, topic: str, *offsets: int) -> None:
    names = ("tagbus.source.topic", "tagbus.source.partition", "tagbus.source.offset")
    if topic == "content.dlq":
        names = tuple(f"__streams.errors.{name}" for name in ("topic", "partition", "offset"))
    places = [tuple(zip(names, (b"content", b"0", str(offset).encode()), strict=True)) for offset in offsets]
    produce(settings.kafka.brokers, topic, [(b"k", b"{}", place) for place in places])


def test_each_input_must_be_out_once(settings: Settings) -> None:
    produce(settings.kafka.brokers, "content", [(b"k", b"{}", [])] * 3)
    put(settings, "tagged", 0, 1)
    put(settings, "content.dlq", 2)
    assert compare(settings) == SET_ASIDE
    assert compare(settings).faults(settings) == ["1 dead-lettered"]
    assert replace(SET_ASIDE, tagged=3, dead_lettered=0).faults(settings) == []


def test_what_is_lost_invented_or_doubled_is_counted(settings: Settings) -> None:
    produce(settings.kafka.brokers, "content", [(b"k", b"{}", [])] * 3)
    put(settings, "tagged", 0, 0, 0, 7)
    found = compare(settings)
    assert (found.lost, found.invented, found.doubled) == (2, 1, 2)
    assert found.faults(settings) == ["2 lost", "1 invented", "2 doubled"]
    loose = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"delivery": "at_least_once"})})
    assert found.faults(loose) == ["2 lost", "1 invented"]
