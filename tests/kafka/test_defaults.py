"""A broker that creates topics when a client asks for one, as Kafka does by default, and what it does to tagbus."""

import json
from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka.admin import AdminClient

from tagbus.stream.cli import run
from tagbus.stream.cli.commands import COMMANDS as EVERY
from tagbus.stream.cli.operate import check
from tagbus.stream.errors import UserError
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.child import HOST, free_ports
from tests.bus.harness import TOPICS, Running
from tests.bus.harness import settings as of_a_worker
from tests.bus.taggers import Trivial
from tests.cli.harness import Answer, Cli
from tests.support import Layout, create_topics, produce, unique

pytestmark = pytest.mark.kafka

WORDS = (
    *("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases"),
    *("feedback", "feedback_state", "feedback_dead_letters"),
)
COMPACT = {"cleanup.policy": "compact"}
NOWHERE = "nowhere.invalid"
INTERNAL = {"__consumer_offsets", "__transaction_state"}
# Every command that asks for a topic.
COMMANDS = (
    ("check",),
    ("publish", "-", "--to", "tags"),
    ("retire", "a", "--from", "content"),
    ("tail", "tagged", "-n", "1"),
    ("tail", "content.dlq", "-n", "1"),
    ("replay",),
    ("retag", "--since", "1h"),
    ("skip", "{content}:0:0"),
    ("release", "list"),
    ("release", "build", "minilm-l6-f16-1"),
    ("release", "activate", "minilm-l6-f16-1"),
    ("release", "drop", "another"),
    ("run",),
    ("feedback",),
    ("run", "--from", "earliest", "--group", "again", "--output", "again"),
    ("index",),
    ("views",),
    ("explain", "a"),
    ("ping", "--seconds", "1"),
    ("tags", "import", "-", "--form", "jsonl"),
    ("tags", "export"),
    ("tags", "show", "a"),
    ("exemplars", "import", "-", "--form", "jsonl"),
    ("memory", "status"),
    ("memory", "verify"),
    ("synthesize", "descriptions"),
)
SERVERS = {"index": {"MEMORY__KIND": "server"}, "synthesize": {"LLM__URL": "http://127.0.0.1:1", "LLM__MODEL": "m"}}
# Those that ask for none, and those that say that they make some.
WITHOUT = {"tag", "validate", "plan", "calibrate", "evaluate", "compare", "config", "asyncapi", "schema", "prompt"}
MAKING = {"topics", "demo", "acceptance"}


class DefaultKafka(ApacheKafka):
    """Kafka's defaults, the classic group protocol alone, and a second listener that leads nowhere: clients that come
    by it are sent on to a host that does not exist."""

    def __init__(self) -> None:
        super().__init__(
            settings={"auto.create.topics.enable": "true", "group.coordinator.rebalance.protocols": "classic"}
        )
        self.misleading = ""

    def _place(self) -> None:
        broker, controller, misleading = free_ports(3)
        self.address, self.misleading = f"{HOST}:{broker}", f"{HOST}:{misleading}"
        listeners = f"PLAINTEXT://{self.address},LOST://{self.misleading}"
        self._write(
            {
                "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.address},LOST://{NOWHERE}:9092",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@{HOST}:{controller}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOST:PLAINTEXT",
            }
        )


@pytest.fixture(scope="module")
def broker(apache: Callable[..., ApacheKafka]) -> Iterator[DefaultKafka]:
    """One for the whole file; `apache` is asked for because it skips where Kafka cannot run."""
    with DefaultKafka() as started:
        yield started


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of the command ends before its first batch here, and leaves signals and logging alone."""
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(run.console, "set_up_logging", lambda *_: None)
    monkeypatch.setattr(check, "SECONDS", 3.0)


@pytest.fixture
def names() -> dict[str, str]:
    """Names that no topic has."""
    return {word: unique(word) for word in WORDS}


def settings(broker: DefaultKafka, names: Mapping[str, str], partitions: int = 3) -> dict[str, str]:
    return {
        "KAFKA__BROKERS": broker.address,
        "KAFKA__GROUP": unique("group"),
        "TOPICS__PARTITIONS": str(partitions),
        "HEALTH__PORT": "0",
        **{f"TOPICS__{word.upper()}": name for word, name in names.items()},
    }


def partitions(broker: DefaultKafka) -> dict[str, int]:
    """How many partitions each topic has."""
    found = AdminClient({"bootstrap.servers": broker.address}).list_topics(timeout=60).topics
    return {name: len(topic.partitions) for name, topic in found.items() if name not in INTERNAL}


def made(broker: DefaultKafka, names: Mapping[str, str], **layouts: Layout) -> None:
    """Topics as another client creates them: one partition, kept by time, unless configured otherwise."""
    create_topics(broker.address, {name: layouts.get(word, 1) for word, name in names.items()})


def right(**layouts: Layout) -> dict[str, Layout]:
    """Layouts as `tagbus topics create` makes them."""
    compacted = ("tags", "exemplars", "knowledge", "versions", "releases", "feedback_state")
    return dict.fromkeys(compacted, (1, COMPACT)) | layouts


def said(answer: Answer, name: str) -> str:
    """The line about a topic."""
    (line,) = (line for line in answer.err.splitlines() if line.startswith(f"{name} "))
    return line


def test_every_command_is_tried() -> None:
    assert {command[0] for command in COMMANDS} == EVERY.keys() - WITHOUT - MAKING


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_creates_a_topic(
    broker: DefaultKafka, names: dict[str, str], tagbus: Cli, command: tuple[str, ...]
) -> None:
    before = partitions(broker)
    answer = tagbus(
        *(word.format(**names) for word in command),
        settings=settings(broker, names) | SERVERS.get(command[0], {}),
        stdin=json.dumps({"id": "a", "name": "bees"}).encode(),
    )
    assert answer.code != 0 or command == ("release", "list")
    assert "Traceback" not in answer.err
    # A broker creates topics in the order in which it is asked, and some time after it has answered.
    last = unique("last")
    create_topics(broker.address, {last: 1})
    assert partitions(broker) == before | {last: 1}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        *(("run", word) for word in ("tags", "exemplars", "knowledge", "versions", "releases")),
        ("index", "tags"),
        ("feedback", "feedback_state"),
    ],
)
def test_a_topic_that_is_not_compacted_is_refused(
    broker: DefaultKafka, names: dict[str, str], tagbus: Cli, command: str, word: str
) -> None:
    made(broker, names, **right(**{word: 1}))
    kind = "server" if command == "index" else "exact"
    answer = tagbus(command, settings=settings(broker, names) | {"MEMORY__KIND": kind})
    assert answer.code == 2
    assert answer.one_line() == (
        f"tagbus: topic {names[word]}: cleanup.policy is delete, expected compact, or its records are deleted after a "
        "while; `tagbus topics create --mend` changes it"
    )


class TestMend:
    """`tagbus topics create` says what differs, and changes it when it is asked to."""

    def test_topics_of_a_broker_that_made_them_itself(
        self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli
    ) -> None:
        made(broker, names)
        given = settings(broker, names)
        answer = tagbus("topics", "create", settings=given)
        assert answer.code == 3
        assert said(answer, names["tags"]) == (
            f"{names['tags']} exists already; 1 partitions, 3 in the settings; "
            "cleanup.policy is delete, expected compact"
        )
        assert said(answer, names["content"]) == f"{names['content']} exists already; 1 partitions, 3 in the settings"
        assert answer.err.splitlines()[-1] == (
            "tagbus: 6 of these must be fixed before `tagbus run`; `tagbus topics create --mend` changes what can "
            "be changed"
        )
        answer = tagbus("topics", "create", "--mend", settings=given)
        assert answer.code == 0, answer.err
        assert "mended: cleanup.policy is delete, expected compact" in said(answer, names["tags"])
        there = partitions(broker)
        assert {word: there[name] for word, name in names.items()} == dict.fromkeys(WORDS, 3) | {"releases": 1}
        assert tagbus("check", settings=given).code == 0
        answer = tagbus("topics", "create", settings=given)
        assert (answer.code, answer.err.count("\n")) == (0, len(WORDS))

    def test_records_keep_their_partitions(self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli) -> None:
        made(broker, names, **right())
        produce(broker.address, names["tags"], [(b"t", json.dumps({"id": "t", "name": "bees"}).encode(), [])])
        produce(broker.address, names["versions"], [(b"a", b'{"version":1,"time":null}', [])])
        answer = tagbus("topics", "create", "--mend", settings=settings(broker, names))
        assert answer.code == 0, answer.err
        assert "it holds records, and their keys would move to other partitions" in said(answer, names["tags"])
        there = partitions(broker)
        # A version lies where its content does, whatever its key.
        assert (there[names["tags"]], there[names["versions"]], there[names["tagged"]]) == (1, 3, 3)

    def test_versions_get_the_partitions_that_content_has(
        self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli
    ) -> None:
        made(broker, names, **right(content=4, versions=(2, COMPACT)))
        given = settings(broker, names, 1)
        answer = tagbus("run", settings=given)
        assert answer.code == 2
        assert answer.one_line().endswith(
            f"expected at least the 4 of {names['content']}; `tagbus topics create --mend` adds them"
        )
        assert tagbus("topics", "create", settings=given).code == 3
        assert tagbus("topics", "create", "--mend", settings=given).code == 0
        assert partitions(broker)[names["versions"]] == 4

    def test_missing_versions_are_made_as_large_as_content(
        self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli
    ) -> None:
        create_topics(broker.address, {names["content"]: 5})
        assert tagbus("topics", "create", settings=settings(broker, names, 1)).code == 0
        assert partitions(broker)[names["versions"]] == 5

    def test_compaction_is_not_ended(self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli) -> None:
        # Given a topic of contents whose producer compacts it: with `delete` the broker would remove what is old
        made(broker, names, **right(content=(1, COMPACT)))
        given = settings(broker, names, 1)
        answer = tagbus("topics", "create", "--mend", settings=given)
        assert answer.code == 3
        assert "left: without compaction the broker removes what is older than" in said(answer, names["content"])
        # Then it is as it was
        assert "cleanup.policy is compact, expected delete" in tagbus("check", settings=given).out

    def test_limits_that_are_too_low_are_raised(self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli) -> None:
        low = {"max.message.bytes": "1000", "delete.retention.ms": "60000"}
        made(broker, names, **right(tagged=(1, {"max.message.bytes": "1000"}), tags=(1, {**COMPACT, **low})))
        given = settings(broker, names, 1)
        answer = tagbus("check", settings=given)
        assert answer.code == 3
        assert "max.message.bytes is 1000, expected at least 1048000" in answer.out
        assert "delete.retention.ms is 60000, expected at least 86400000" in answer.out
        assert tagbus("topics", "create", "--mend", settings=given).code == 0
        assert tagbus("check", settings=given).code == 0


class TestCheck:
    """What `tagbus run` would find later."""

    def test_a_broker_that_sends_clients_elsewhere(
        self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli
    ) -> None:
        answer = tagbus("check", settings=settings(broker, names) | {"KAFKA__BROKERS": broker.misleading})
        assert answer.code == 3
        (line,) = (line for line in answer.lines if "advertised" in line)
        assert line.startswith(
            f"wrong   broker                 {broker.misleading}: broker 1 advertises '{NOWHERE}:9092' "
            "(advertised.listeners), which cannot be reached from here: "
        )

    def test_a_group_protocol_that_the_broker_does_not_serve(
        self, broker: DefaultKafka, names: dict[str, str], tagbus: Cli
    ) -> None:
        answer = tagbus("check", settings=settings(broker, names) | {"KAFKA__GROUP_PROTOCOL": "consumer"})
        assert answer.code == 3
        assert (
            "wrong   broker version         group.coordinator.rebalance.protocols is classic, and "
            "TAGBUS_KAFKA__GROUP_PROTOCOL=consumer (KIP-848) needs consumer"
        ) in answer.lines

    def test_a_worker_that_asks_for_it_ends(self, broker: DefaultKafka, names: dict[str, str]) -> None:
        made(broker, names)
        topics = {word: name for word, name in names.items() if word in TOPICS}
        run = Running(of_a_worker(broker.address, topics, kafka={"group_protocol": "consumer"}), Trivial())
        run.join(120)
        assert isinstance(run.error, UserError), run.error
        assert str(run.error).startswith(
            "kafka.group_protocol=consumer: the brokers do not serve it, expected classic; consumer (KIP-848) needs 4.0"
        )
