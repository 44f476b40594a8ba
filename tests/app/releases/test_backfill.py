"""`tagbus run --from`: tag a range of `content` again, into separate topics."""

from datetime import UTC, datetime, timedelta

import pytest

from tagbus.stream.app.releases.backfill import Asked, Backfill, plan
from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import UserError
from tests.bus.harness import exactly_once, inputs, origins, outcome, until_all_out
from tests.cli.harness import Answer, Cli, Slice, process
from tests.cli.test_run import Bus, bus, ready
from tests.conftest import Broker
from tests.support import consume_all, unique

LIVE = Settings()


def planned(settings: Settings = LIVE, **asked: str | float) -> Backfill:
    made = plan(settings, Asked(**{"start": "earliest", "group": "again", "output": "tagged-2", **asked}))  # type: ignore[arg-type]
    assert made is not None
    return made


class TestPlan:
    def test_without_options_there_is_none(self) -> None:
        assert plan(LIVE, Asked()) is None

    def test_it_writes_to_topics_of_its_own_and_fences_nobody(self) -> None:
        live = LIVE.model_copy(update={"tagger": LIVE.tagger.model_copy(update={"write_back": 0.9})})
        work = planned(live).settings
        live_names, names = set(live.topics.model_dump().values()), work.topics
        assert not live_names & {names.tagged, names.dead_letters, names.versions, names.exemplars, names.feedback}
        assert (names.content, names.tags) == (live.topics.content, live.topics.tags)
        assert work.kafka.group == "again"
        assert work.kafka.transactional_id == f"{live.kafka.transactional_id}-again"
        assert work.tagger.write_back is None

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ("earliest", "earliest"),
            ("0:1041,11:7", {0: 1041, 11: 7}),
            ("2026-01-31T09:30:00+02:00", datetime(2026, 1, 31, 7, 30, tzinfo=UTC)),
        ],
    )
    def test_where_it_starts(self, start: str, expected: object) -> None:
        assert planned(start=start).read_range.starts == expected

    def test_a_time_ago(self) -> None:
        start = planned(start="90m").read_range.starts
        assert isinstance(start, datetime)
        assert abs(datetime.now(UTC) - timedelta(minutes=90) - start) < timedelta(minutes=1)

    def test_where_it_ends_and_how_fast(self) -> None:
        assert planned().read_range == ReadRange("earliest", "end", None)
        assert planned(until="2026-01-31T09:30:00Z", rate=50.0).read_range == ReadRange(
            "earliest", datetime(2026, 1, 31, 9, 30, tzinfo=UTC), 50.0
        )

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"group": "tagbus"}, "--group tagbus is the live group: a backfill would move its offsets"),
            ({"output": "tagged"}, "--output tagged is a live topic: old results would replace newer"),
            ({"output": "content"}, "--output content is a live topic"),
            ({"start": "yesterday"}, "--from 'yesterday' is wrong, expected earliest, offsets (0:1041,1:977), an RFC"),
            ({"start": "0:1,"}, "--from '0:1,' is wrong"),
            ({"until": "now"}, "--until 'now' is wrong, expected end, an RFC 3339 time"),
            ({"rate": 0.0}, "rate: 0 is wrong"),
        ],
    )
    def test_a_mistake_is_one_line(self, asked: dict[str, str], expected: str) -> None:
        with pytest.raises(UserError) as caught:
            planned(**asked)
        assert expected in str(caught.value)

    @pytest.mark.parametrize("asked", [Asked(group="g", output="o"), Asked("earliest", output="o"), Asked(rate=5.0)])
    def test_what_is_missing_is_said(self, asked: Asked) -> None:
        with pytest.raises(UserError, match="a backfill needs --from, --group and --output"):
            plan(LIVE, asked)


def settings_of(made: Bus) -> dict[str, str]:
    kafka = {"KAFKA__BROKERS": made.address, "KAFKA__GROUP": made.settings.kafka.group, "HEALTH__PORT": "0"}
    return kafka | {f"TOPICS__{name.upper()}": topic for name, topic in made.names.items()}


def backfill(made: Bus, output: str, *arguments: str) -> Answer:
    options = ("--group", unique("again"), "--output", output)
    return process("run", *options, *arguments, settings=settings_of(made), seconds=120)


def test_a_backfill_beside_the_live_workers(kafka: Broker, cutting: Slice, tagbus: Cli) -> None:
    # Given contents that a live worker has tagged, one that is bad, one that was withdrawn
    made = bus(kafka, cutting)
    made.publish("content", cutting.contents)
    made.send("content", [Record(b"bad", b"{"), Record(cutting.contents[0].id.encode(), None)])
    count = len(cutting.contents) + 2
    output = unique("again")
    created = tagbus("topics", "create", "--output", output, settings=settings_of(made) | {"TOPICS__PARTITIONS": "2"})
    assert [line.split()[1] for line in created.err.splitlines()] == [
        f"{output}.exemplars",
        output,
        f"{output}.dlq",
        f"{output}.versions",
        f"{output}.feedback",
    ]
    with ready(made):
        until_all_out(made.address, made.names, count)
        before = {name: len(consume_all(made.address, topic)) for name, topic in made.names.items()}
        # When all of it is tagged again into another topic
        answer = backfill(made, output, "--from", "earliest")
        # Then it ends at the end of its range, every input has one output, and no live topic was written to
        assert answer.code == 0, answer.err
    own = made.names | {"tagged": output, "dead_letters": f"{output}.dlq"}
    assert set(outcome(made.address, own)) == inputs(made.address, made.names)
    exactly_once(made.address, own)
    assert {name: len(consume_all(made.address, topic)) for name, topic in made.names.items()} == before
    exactly_once(made.address, made.names)


def test_a_part_of_it_at_a_rate(kafka: Broker, cutting: Slice, tagbus: Cli) -> None:
    made = bus(kafka, cutting)
    made.publish("content", cutting.contents)
    output = unique("again")
    tagbus("topics", "create", "--output", output, settings=settings_of(made) | {"TOPICS__PARTITIONS": "2"})
    places = sorted(inputs(made.address, made.names))
    first = [max(offset for partition, offset in places if partition == number) for number in (0, 1)]
    answer = backfill(made, output, "--from", f"0:{first[0] - 4},1:{first[1]}", "--rate", "4")
    assert answer.code == 0, answer.err
    results = consume_all(made.address, output)
    assert set(origins(results)) == {(0, offset) for offset in range(first[0] - 4, first[0] + 1)} | {(1, first[1])}
    # Six of them at four a second: the last is a second behind the first.
    times = sorted(message.timestamp()[1] for message in results)
    assert times[-1] - times[0] >= 900
