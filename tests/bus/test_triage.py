"""Triage: what becomes of each record of a batch. No Kafka here."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies

from tagbus.stream.bus.flight import Batch, Source, Verdict
from tagbus.stream.bus.triage import ATTEMPTS, CANARY, BatchTagger, Triage
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import Fatal, ReleaseMismatch
from tagbus.stream.tagger import Failure
from tests.bus.harness import event
from tests.bus.taggers import Allergic, Down, Picky, Trivial

QUICK = Settings.model_validate({"retry": {"first_seconds": 0.001, "cap_seconds": 0.002}})


def batch(values: Sequence[bytes | None]) -> Batch:
    records = [Record(b"gone" if value is None else None, value) for value in values]
    sources = tuple(Source("content", 3, 10 + i, record) for i, record in enumerate(records))
    return Batch(("content", 3), 1, sources, 0, 0.0)


def judge(tagger: BatchTagger, values: Sequence[bytes | None], settings: Settings = QUICK) -> list[Verdict]:
    return asyncio.run(Triage(settings, tagger).judge(batch(values), lambda _: None))


def header(verdict: Verdict, name: str) -> str:
    return (dict(verdict.outgoing[0].headers)[name] or b"").decode()


def contents(*names: str) -> list[bytes]:
    return [event(name) for name in names]


def test_there_is_a_verdict_for_each_record_in_order() -> None:
    verdicts = judge(Trivial(), [event("a"), b"?", None, event("b")])
    assert [verdict.outcome for verdict in verdicts] == ["tagged", "dead_lettered", "withdrawn", "tagged"]
    assert [header(verdict, "tagbus.source.offset") for verdict in verdicts] == ["10", "11", "12", "13"]


@given(
    strategies.lists(
        strategies.one_of(strategies.none(), strategies.binary(), strategies.text().map(event)), max_size=8
    )
)
def test_whatever_comes_each_record_has_its_own_verdict(values: list[bytes | None]) -> None:
    verdicts = judge(Trivial(), values)
    assert [header(verdict, "tagbus.source.offset") for verdict in verdicts] == [
        str(10 + i) for i in range(len(values))
    ]
    for value, verdict in zip(values, verdicts, strict=True):
        assert verdict.outcome != "dead_lettered" or verdict.outgoing[0].value == value


def test_what_fails_alone_where_its_neighbours_pass_is_set_aside() -> None:
    tagger = Allergic(lambda content: content.id == "bad")
    verdicts = judge(tagger, contents("a", "bad", "b"))
    assert [verdict.outcome for verdict in verdicts] == ["tagged", "dead_lettered", "tagged"]
    assert verdicts[1].stage == "tag"
    assert header(verdicts[1], "__streams.errors.exception") == "Untaggable"
    assert header(verdicts[1], "tagbus.attempts") == str(ATTEMPTS)


def test_what_fails_without_neighbours_is_set_aside_where_the_canary_passes() -> None:
    tagger = Allergic(lambda content: content.id != CANARY.id)
    assert [verdict.outcome for verdict in judge(tagger, contents("a", "b"))] == ["dead_lettered"] * 2
    assert [verdict.outcome for verdict in judge(tagger, contents("a"))] == ["dead_lettered"]


def test_a_tagger_that_fails_for_everything_is_waited_for() -> None:
    # Given a tagger that fails for every content, the canary among them, until it is mended
    tagger = Allergic(lambda _: not mended)
    mended = False
    stalls: list[bool] = []

    async def scenario() -> list[Verdict]:
        nonlocal mended
        task = asyncio.create_task(Triage(QUICK, tagger).judge(batch(contents("a", "b")), stalls.append))
        while not stalls:
            await asyncio.sleep(0)
        mended = True
        return await task

    # Then it is not the contents that are bad: nothing is set aside
    assert [verdict.outcome for verdict in asyncio.run(scenario())] == ["tagged", "tagged"]
    assert (stalls[0], stalls[-1]) == (True, False)


def test_a_dependency_that_is_down_stalls_the_batch_and_nothing_else() -> None:
    tagger, stalls = Down(), list[bool]()

    async def scenario() -> list[Verdict]:
        task = asyncio.create_task(Triage(QUICK, tagger).judge(batch(contents("a")), stalls.append))
        while tagger.calls < 5:
            await asyncio.sleep(0.001)
        assert not task.done()
        tagger.up = True
        return await task

    assert [verdict.outcome for verdict in asyncio.run(scenario())] == ["tagged"]
    assert (stalls[0], stalls[-1]) == (True, False)


def test_a_batch_without_contents_does_not_ask_the_tagger() -> None:
    assert [verdict.outcome for verdict in judge(Down(), [b"?", None])] == ["dead_lettered", "withdrawn"]


def test_a_failure_keeps_its_stage() -> None:
    (verdict,) = judge(Picky(lambda _: True), contents("a"))
    assert (verdict.outcome, verdict.stage) == ("dead_lettered", "encode")


def test_a_fatal_error_of_the_tagger_is_passed_on() -> None:
    class Mismatched(Trivial):
        async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
            raise ReleaseMismatch(f"another release made these {len(contents)}")

    with pytest.raises(Fatal):
        judge(Mismatched(), contents("a"))


def test_a_tagger_that_returns_too_few_loses_nothing() -> None:
    class Short(Trivial):
        async def tag(self, contents: Sequence[Content]) -> list[TaggedContent | Failure]:
            return (await super().tag(contents))[:1]

    assert [verdict.outcome for verdict in judge(Short(), contents("a", "b", "c"))] == ["tagged"] * 3


def test_the_log_quotes_no_content(caplog: pytest.LogCaptureFixture) -> None:
    judge(Allergic(lambda content: content.id == "bad"), [event("bad", "a secret text"), event("a", "a secret text")])
    assert "failed" in caplog.text
    assert "secret" not in caplog.text


def test_results_below_the_confidence_are_not_written_back() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.95}})
    (verdict,) = judge(Trivial(), contents("a"), settings)
    assert [outgoing.topic for outgoing in verdict.outgoing] == ["tagged"]


def test_an_exemplar_that_is_written_back_fits_its_topic() -> None:
    settings = Settings.model_validate({"tagger": {"write_back": 0.5}})
    (verdict,) = judge(Trivial(), [event("a", "\x01" * 400_000)], settings)
    assert all(len(outgoing.value or b"") <= settings.batch.record_bytes for outgoing in verdict.outgoing)
    assert [outgoing.key for outgoing in verdict.outgoing] == [b"a", b"a/machine"]
