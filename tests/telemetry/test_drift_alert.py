"""Drift from end to end: titles through the tagger, its series through the rules. Long: bench/drift.py."""

import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.tagger import Tagger
from tests.bus.process.test_tag_processor import batch
from tests.telemetry.drifting import A_MINUTE, Minutes, german

# A third of the defaults, for a third of the time.
SETTINGS = Settings.model_validate(
    {"drift": {"reference": 600, "window": 300, "contents_per_second": 1e6}, "encoder": {"threads": 1}}
)
SHIFT, AFTER = 20, 14


@pytest.fixture
async def tagger() -> AsyncIterator[Tagger]:
    """Over the tags of the examples and some of their contents."""
    async with assemble.in_process(SETTINGS) as stack:
        tags = files.all_of(example("tags.jsonl"), files.tag_of)
        exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
        await filling.fill(stack.projection(), {"tags": tags, "exemplars": exemplars[:50]}, lambda _: None)
        yield stack.tagger()


def titles() -> list[str]:
    """Of the examples, shuffled."""
    rows = files.all_of(example("exemplars.jsonl"), files.exemplar_of)[: SHIFT * A_MINUTE]
    found = [row.title for row in rows]
    random.Random(1).shuffle(found)  # noqa: S311
    return found


async def minutes_of(processor: TagProcessor, texts: Sequence[str]) -> Minutes:
    """The series of a worker that gets a content a second."""
    found = Minutes()
    for start in range(0, len(texts), A_MINUTE):
        some = [Content(id=f"c{start + number}", title=text) for number, text in enumerate(texts[start:][:A_MINUTE])]
        await processor.process(batch([encode_record(content).value for content in some]), lambda _: None)
        found.read(generate_latest().decode())
    return found


async def test_texts_in_another_language_raise_the_alert_within_half_an_hour_and_not_before(
    tagger: Tagger, tmp_path: Path
) -> None:
    minutes = await minutes_of(TagProcessor(SETTINGS, tagger), [*titles(), *german(AFTER * A_MINUTE)])
    assert minutes.wrong({SHIFT: False, SHIFT + AFTER - 1: True}, tmp_path) == "", minutes.highest()
    # And promtool does see the difference.
    assert "got:" in minutes.wrong({SHIFT: True}, tmp_path)
