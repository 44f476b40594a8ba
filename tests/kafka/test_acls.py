"""The least ACLs of each command (tests/kafka/rights.py): with all of them it works, without any one it says which."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from qdrant_client import AsyncQdrantClient

from tagbus.stream.app.joining.service import JoinService
from tagbus.stream.contract.codec import dead_letter_headers, encode
from tagbus.stream.contract.events import Content, DeadLetter, Exemplar, Tag
from tagbus.stream.contract.release import Active, ReleaseRecord, encode_release
from tagbus.stream.contract.schema import EXAMPLES
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import UserError
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.indexer import indexer
from tagbus.stream.kafka.admin.topics import require_compacted
from tagbus.stream.local.child import free_ports
from tagbus.stream.memory import Carried, memory_of
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore
from tests.bus.harness import RunningWorker, event, events
from tests.bus.taggers import tagged
from tests.cli.harness import Answer, Cli
from tests.index.parts import encoder
from tests.kafka.parts import COMPACT, SPOILT, VIEWS, Tenant, worker
from tests.kafka.rights import LEAST, Right, table
from tests.llm import scripted
from tests.llm.batch_server import BatchServer
from tests.support import consume_all, produce

pytestmark = pytest.mark.kafka

DOCS = Path(__file__).parents[2] / "docs" / "operator.md"
SHIPPED = load_release(default_folder())
SECONDS = 120.0
RUNS = {"run (exactly_once)": "exactly_once", "run (at_least_once)": "at_least_once"}
CALLS = {
    "publish --to content": ("publish", "-", "--to", "content"),
    "publish --to exemplars": ("publish", "-", "--to", "exemplars"),
    "retire --from content": ("retire", "a", "--from", "content"),
    "retire --from tags --replaced-by": ("retire", "t1", "--from", "tags", "--replaced-by", "t2"),
    "tags import": ("tags", "import", "-", "--form", "jsonl"),
    "exemplars import": ("exemplars", "import", "-", "--form", "jsonl"),
    "tail tagged": ("tail", "tagged", "--count", "1"),
    "tail content.dlq": ("tail", "content.dlq", "--count", "1"),
    "tail feedback.dlq": ("tail", "feedback.dlq", "--count", "1"),
    "replay --send": ("replay", "--send"),
    "replay feedback.dlq --send": ("replay", "feedback.dlq", "--send"),
    "retag --send": ("retag", "--tag", "t1", "--send"),
    "retag --batch --send": ("retag", "--tag", "t1", "--send", "--batch", "{folder}", "--every", "0.01"),
    "skip": ("skip", "{content}:0:0"),
    "release activate": ("release", "activate", SHIPPED.name),
    "release drop": ("release", "drop", SHIPPED.name),
    "release build": ("release", "build", SHIPPED.name),
    "explain": ("explain", "a"),
    "topics create": ("topics", "create"),
    "topics create --mend": ("topics", "create", "--mend"),
}
# Without a worker it gets no answer.
ASKS = {"ping": ("ping", "--seconds", "1")}
# With all rights it goes on (tests/kafka/test_views_secured.py).
SERVES = {"views": ("views",)}
BATCH = "retag --batch --send"
# Standard input of those that read no content.
INPUTS = {
    "tags import": b"".join(encode(Tag(id=one, name="Bees")) + b"\n" for one in ("t1", "t2")),
    "exemplars import": encode(Exemplar(id="a", title="Bees", accepted=("t1",))),
}
# What a right to create a topic does not give.
MENDING = frozenset({"Alter", "AlterConfigs"})
# Left out is what is the same code: at_least_once but for the group, every topic but two of those that are made, the
# memory topics of a build and of an explanation, and what a retag reads in a batch and without.
LACKING = [
    (command, missing)
    for command, rights in LEAST.items()
    for missing in rights
    if (command != "run (at_least_once)" or missing.kind == "group")
    and (command != "topics create" or missing.name in {"content", "versions"})
    and (command != "topics create --mend" or (missing.operation in MENDING and missing.name == "versions"))
    and (command != "release build" or missing.name == "releases")
    and (command != "explain" or missing.name in {"content", "releases"})
    and (command != BATCH or missing.name == "budget" or missing.operation == "Write")
]


def call(tagbus: Cli, tenant: Tenant, command: str) -> Answer:
    """Run a command, with something there to be read."""
    address, names = tenant.broker.address, tenant.names
    more: dict[str, str] = {}
    if command == "topics create --mend":
        tenant.make_topics(SPOILT)
        more = {"TOPICS__PARTITIONS": "2"}
    elif command == "views":
        tenant.make_topics({"tagged": 1, **VIEWS})
        more = {"VIEWS__PORT": str(free_ports(1)[0]), "HEALTH__PORT": "0"}
    elif command != "topics create":
        tenant.make_topics()
        for source in ("content", "feedback"):
            produce(address, names[source], [(b"a", event("a"), []), (b"c", event("c"), [])])
        produce(address, names["tagged"], [(b"a", encode(tagged(Content(id="a", title="Bees"))), [])])
        if "--replaced-by" in command or "import" in command:
            produce(address, names["tags"], [(one.encode(), encode(Tag(id=one, name=one)), []) for one in ("t1", "t2")])
        if "import" in command:
            produce(address, names["exemplars"], [(b"b/people", encode(Exemplar(id="b", title="b")), [])])
        for source, letters in (("content", "dead_letters"), ("feedback", "feedback_dead_letters")):
            letter = DeadLetter(
                topic=names[source], partition=0, offset=0, exception="Untaggable", message="no", stage="tag"
            )
            produce(address, names[letters], [(b"b", event("b"), dead_letter_headers(letter))])
        other = Active(release="another", time=datetime.now(UTC))
        # `explain` and a batch cannot use a missing release.
        more_of = {"release build": (other,), "explain": (), BATCH: ()}
        there = more_of.get(command, (ReleaseRecord(release=SHIPPED), other))
        records = [encode_release(one) for one in there]
        produce(address, names["releases"], [(one.key, one.value, []) for one in records])
    with TemporaryDirectory() as folder, scripted.serving(BatchServer()) as server:
        if command == BATCH:
            tenant.make_topics({"budget": COMPACT})
            more = judged(server)
        arguments = [word.format(**names, folder=folder) for word in (CALLS | ASKS | SERVES)[command]]
        given = tenant.environment() | {"RELEASES__FOLDER": folder} | more
        answer = tagbus(*arguments, stdin=INPUTS.get(command, event("a")), settings=given)
        assert answer.code == 0 or not server.requests, "money is spent, and then a right is missing"
        return answer


def judged(server: scripted.Server) -> dict[str, str]:
    """Settings of a judge that is asked about every content, with a budget."""
    return {
        "LLM__URL": server.url,
        "LLM__API_KEY": "secret",
        "LLM__MODEL": "m",
        "LLM__BACKEND": "stated",
        "CASCADE__CONTROL": "1",
        "BUDGET__PRICE_IN": "2",
        "BUDGET__PRICE_OUT": "8",
        "BUDGET__COST_PER_DAY": "1",
        "KNOWLEDGE__SEGMENTS": "0",
    }


def missing_right(right: Right, tenant: Tenant) -> str:
    """What the error says of a right."""
    end = "-" if right.kind == "transactional id" else " "
    return f"grant {right.operation} on {right.kind} {tenant.names[right.name]}{end}"


@pytest.mark.parametrize("command", RUNS)
def test_a_worker_does_all_of_its_work_with_the_least_rights(command: str, tenant: Tenant) -> None:
    """Three results, their exemplars, a dead letter and a withdrawal."""
    tenant.make_topics()
    tenant.may(LEAST[command])
    address, names = tenant.broker.address, tenant.names
    produce(address, names["content"], [*events(3), (b"x", b"{", []), (b"c1", None, [])])

    run = worker(tenant.settings(delivery=RUNS[command]))
    consume_all(address, names["tagged"], until=lambda found: len(found) == 4)
    consume_all(address, names["dead_letters"], until=lambda found: len(found) == 1)
    consume_all(address, names["exemplars"], until=lambda found: len(found) == 5)
    run.worker.stop()
    run.join()

    assert run.error is None


@pytest.mark.parametrize(
    ("command", "missing"), [(command, right) for command, right in LACKING if command in RUNS], ids=str
)
def test_a_worker_that_lacks_a_right_ends_and_names_it(command: str, missing: Right, tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(set(LEAST[command]) - {missing})
    address, names = tenant.broker.address, tenant.names
    produce(address, names["content"], [*events(3), (b"x", b"{", []), (b"c1", None, [])])
    produce(address, names["tags"], [(b"t1", None, [])])
    produce(address, names["exemplars"], [(b"c1/people", None, [])])

    run = worker(tenant.settings(delivery=RUNS[command]))
    run.join(SECONDS)

    assert isinstance(run.error, UserError), run.error
    assert str(run.error).startswith(f"Kafka refuses User:{tenant.user}: {missing_right(missing, tenant)}")
    assert consume_all(address, names["tagged"]) == []
    assert consume_all(address, names["dead_letters"]) == []


@pytest.mark.parametrize("command", CALLS)
def test_a_command_works_with_the_least_rights(command: str, tagbus: Cli, tenant: Tenant) -> None:
    tenant.may(LEAST[command])

    answer = call(tagbus, tenant, command)

    assert answer.code == 0, answer.err


def test_ping_needs_no_more_than_its_least_rights(tagbus: Cli, tenant: Tenant) -> None:
    tenant.may(LEAST["ping"])

    answer = call(tagbus, tenant, "ping")

    assert (answer.code, "has no result" in answer.err) == (4, True)


@pytest.mark.parametrize(
    ("command", "missing"), [case for case in LACKING if case[0] in CALLS | ASKS | SERVES], ids=str
)
def test_a_command_that_lacks_a_right_ends_and_names_it(
    command: str, missing: Right, tagbus: Cli, tenant: Tenant
) -> None:
    tenant.may(set(LEAST[command]) - {missing})

    answer = call(tagbus, tenant, command)

    assert answer.code == 2
    last = answer.err.splitlines()[-1]
    assert last.startswith(f"tagbus: Kafka refuses User:{tenant.user}: {missing_right(missing, tenant)}")
    assert "Traceback" not in answer.err


def test_a_backfill_that_may_not_write_its_results_asks_nothing_in_a_batch(tagbus: Cli, tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(LEAST["run (exactly_once)"])
    where = ("--from", "earliest", "--group", f"{tenant.names['group']}-again", "--output", "again")

    with TemporaryDirectory() as folder, scripted.serving(BatchServer()) as server:
        answer = tagbus("run", *where, "--batch", folder, settings=tenant.environment() | judged(server))

    assert answer.code == 2
    assert "Write on topic again, " in answer.err.splitlines()[-1]
    assert server.requests == []


async def index(tenant: Tenant) -> None:
    """What `tagbus index` does, into a Qdrant in this process."""
    given, release = tenant.settings(), encoder().release
    server = Server(AsyncQdrantClient(":memory:"), "memory")

    async def store(kind: str, carried: Carried) -> ServerStore:
        return ServerStore(server, CollectionSpec("tagbus", release.name, kind, release.dimension), carried)

    memory = await memory_of(store)
    follower = await indexer(given, Projection(encoder(), memory), [memory])
    following = asyncio.create_task(follower.run())
    opened = asyncio.create_task(follower.ready.wait())
    async with asyncio.timeout(SECONDS):
        await asyncio.wait({following, opened}, return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    if not following.done():
        following.cancel()
        return
    following.result()


async def test_the_indexer_works_with_the_least_rights(tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(LEAST["index"])

    await index(tenant)


@pytest.mark.parametrize("missing", LEAST["index"], ids=str)
async def test_an_indexer_that_lacks_a_right_ends_and_names_it(missing: Right, tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(set(LEAST["index"]) - {missing})

    with pytest.raises(UserError) as caught:
        await index(tenant)

    name = tenant.names[missing.name]
    assert f"User:{tenant.user}: grant {missing.operation} on {missing.kind} {name}" in str(caught.value)


def joiner(tenant: Tenant) -> RunningWorker:
    """What `tagbus feedback` runs, with a decision to join, one that it cannot read and a withdrawal."""
    tenant.make_topics()
    decided = encode(EXAMPLES["feedback"])
    records = [(b"article-17", decided, []), (b"article-17", b"{", []), (b"article-17", None, [])]
    produce(tenant.broker.address, tenant.names["feedback"], records)
    return RunningWorker(JoinService(tenant.settings()).worker)


def test_the_joiner_works_with_the_least_rights(tenant: Tenant) -> None:
    tenant.may(LEAST["feedback"])

    run = joiner(tenant)
    consume_all(tenant.broker.address, tenant.names["exemplars"], until=lambda found: len(found) == 2)
    consume_all(tenant.broker.address, tenant.names["feedback_dead_letters"], until=lambda found: len(found) == 1)
    run.worker.stop()
    run.join()

    assert run.error is None


@pytest.mark.parametrize("missing", LEAST["feedback"], ids=str)
def test_a_joiner_that_lacks_a_right_ends_and_names_it(missing: Right, tenant: Tenant) -> None:
    tenant.may(set(LEAST["feedback"]) - {missing})

    run = joiner(tenant)
    run.join(SECONDS)

    assert isinstance(run.error, UserError), run.error
    own = "" if missing.kind == "topic" else "-feedback"
    said = f"grant {missing.operation} on {missing.kind} {tenant.names[missing.name]}{own}"
    assert str(run.error).startswith(f"Kafka refuses User:{tenant.user}: {said}")
    assert consume_all(tenant.broker.address, tenant.names["exemplars"]) == []


def test_a_worker_that_may_not_read_the_settings_of_topics_is_unsure_and_goes_on(
    tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    tenant.make_topics(SPOILT)
    tenant.may(LEAST["run (exactly_once)"])

    require_compacted([tenant.settings()])

    (said,) = [words for record in caplog.records if "unsure" in (words := record.getMessage())]
    assert all(tenant.names[word] in said for word in ("tags", "exemplars", "versions", "releases"))
    assert said.endswith("keep the last record of each key: not disclosed (DescribeConfigs)")


def test_check_names_every_topic_that_may_not_be_described(tagbus: Cli, tenant: Tenant) -> None:
    tenant.make_topics()
    blind, *rights = LEAST["check"]
    tenant.may(rights)

    answer = tagbus("check", settings=tenant.environment())

    assert answer.code == 3
    (wrong,) = (line for line in answer.lines if line.startswith("wrong"))
    assert f"User:{tenant.user}: {missing_right(blind, tenant)}" in wrong


def test_check_is_content_with_the_least_rights(tagbus: Cli, tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(LEAST["check"])

    answer = tagbus("check", settings=tenant.environment())

    assert answer.code == 0
    assert {line.split()[0] for line in answer.lines} == {"ok", "unsure"}


def test_the_table_in_the_docs_is_what_is_granted_here() -> None:
    assert table() in DOCS.read_text()
