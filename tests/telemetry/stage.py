"""A cluster whose contents, tags and settings hold canaries, and the four services of tagbus on it."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tagbus.stream.config import TopicSettings, ViewsSettings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.feedback.published import Publishing
from tagbus.stream.local.child import free_ports
from tagbus.stream.local.qdrant import QdrantServer
from tests.cli.harness import environment, write
from tests.llm import answers
from tests.llm.scripted import Request, Say, Server, serving
from tests.support import create_topics, get, produce, unique, wait_until

# In what a content says, in what a tag says, in every secret.
TEXT, TAG, SECRET = "xyzzytext", "xyzzytag", "xyzzysecret"
SECONDS = 240
TAGS = [
    Tag(id=f"t{n}", name=f"bees {TAG} {n}", description=f"hives {TAG}", aliases=(f"apiary {TAG} {n}",))
    for n in range(12)
]
TITLES = [f"Bees {TEXT} in city {number}" for number in range(60)]
CONTENTS = [
    Content(id=f"c{number}", title=title, text=f"A hive {TEXT}.", metadata={"note": TEXT})
    for number, title in enumerate(TITLES[:8])
]
EXEMPLARS = [
    Exemplar(id=f"e{number}", title=f"{title} again", text=TEXT, accepted=(f"t{number % 12}",))
    for number, title in enumerate(TITLES)
]
# The same that memory does not hold.
ANNOTATED = [
    one.model_copy(update={"id": f"a{number}", "title": f"{one.title} and {number}"})
    for number, one in enumerate(EXEMPLARS)
]
KNOWLEDGE = [Knowledge(id="k1", kind="rule", title=f"Rule {TEXT}", text=f"Hives are beekeeping. {TEXT}")]
BROKEN = f'{{"id": "broken", "text": 7, "title": "{TEXT}"'.encode()
# The services in the order in which they can start, and what shows that each has had all that is there for it.
DONE = {
    "index": (len(TAGS) + len(EXEMPLARS) + len(KNOWLEDGE), "tagbus_memory_applied_total"),
    "run": (len(CONTENTS) + 1, "tagbus_received_total"),
    "feedback": (5, "tagbus_received_total"),
    "views": (len(CONTENTS), 'tagbus_views_applied_total{view="contents"}'),
}
COMPACTED = {"tags", "exemplars", "knowledge", "versions", "releases", "feedback_state", "budget"}


@dataclass(frozen=True)
class Stage:
    """`variables`: settings without their prefix; `files`: what commands are given; `told`: what a model and a
    collector of traces were sent."""

    address: str
    variables: Mapping[str, str]
    files: Mapping[str, Path]
    told: Server


@contextmanager
def staged(address: str, folder: Path) -> Iterator[Stage]:
    """Topics with records, a shared memory, and a language model that answers any question."""
    with ExitStack() as stack:
        told = stack.enter_context(serving(_answer))
        qdrant = stack.enter_context(QdrantServer())
        names = {name: unique(name.replace("_", "-")) for name, value in TopicSettings() if isinstance(value, str)}
        views = ViewsSettings(group=unique("views"))
        compact = (1, {"cleanup.policy": "compact"})
        layouts = {names[name]: compact if name in COMPACTED else 1 for name in names}
        layouts |= {name: 1 if name == views.changes else compact for name in views.topics}
        create_topics(address, layouts)
        for topic, events in {
            "tags": TAGS,
            "exemplars": EXEMPLARS,
            "knowledge": KNOWLEDGE,
            "content": CONTENTS,
        }.items():
            _put(address, names[topic], [encode_record(one) for one in events])
        _put(address, names["content"], [Record(b"broken", BROKEN)])
        _put(address, names["feedback"], [encode_record(Publishing().decision(one)) for one in EXEMPLARS[:5]])
        yield Stage(address, _variables(address, names, views, qdrant, told), _files(folder), told)


class Service:
    """One of the services, as a process with all that it can say."""

    def __init__(self, stage: Stage, command: str) -> None:
        self.command = command
        health, views = free_ports(2)
        self._port, self._metrics = health, ""
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - lives as long as this object
        variables = {
            **stage.variables,
            "HEALTH__PORT": str(health),
            "VIEWS__PORT": str(views),
            "OTEL__ENDPOINT": stage.told.url.removesuffix("/v1"),
            "OTEL__SAMPLE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tagbus.stream.cli", command, "--log", "debug"],
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def until_done(self) -> None:
        """Wait until it is ready, and has had what is there for it."""
        wait_until(lambda: self.ended or get(self._port, "/readyz")[0] == 200, SECONDS, f"a ready {self.command}")
        assert not self.ended, self.log()[-3000:]
        count, metric = DONE[self.command]
        pattern = re.compile(rf"^{metric}[^ ]* ([0-9.e+]+)$", re.MULTILINE)
        wait_until(lambda: sum(map(float, pattern.findall(self.metrics()))) >= count, SECONDS, f"{count} {metric}")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def metrics(self) -> str:
        """Of one that has ended as they were last."""
        status, text = get(self._port, "/metrics")
        self._metrics = text if status == 200 else self._metrics
        return self._metrics

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> int:
        if not self.ended:
            self.process.terminate()
        return self.process.wait(SECONDS)

    def close(self) -> None:
        if not self.ended:
            self.process.kill()
            self.process.wait()
        self._log.close()


def _put(address: str, topic: str, records: list[Record]) -> None:
    produce(address, topic, [(one.key, one.value, []) for one in records])


def _answer(request: Request) -> Say:
    """What a model says that repeats what it is asked; nothing to a collector."""
    if request.path.endswith("/models"):
        return Say({"object": "list", "data": [{"id": "parrot-1", "object": "model"}]})
    if request.path.endswith("/decisions"):
        return answers.openai_decisions()(request)
    if "completions" in request.path:
        written = {"contents": [{"title": f"Bees {TEXT}", "text": TEXT}], "description": f"About {TAG} {TEXT}"}
        return Say(answers.completion(json.dumps(written)))
    return (
        Say({"error": {"message": f"not found: {TEXT}", "type": "not_found_error"}}, 404) if request.body else Say(b"")
    )


def _variables(
    address: str, names: Mapping[str, str], views: ViewsSettings, qdrant: QdrantServer, told: Server
) -> dict[str, str]:
    return {
        "KAFKA__BROKERS": address,
        "KAFKA__GROUP": unique("group"),
        "KAFKA__TRANSACTIONAL_ID": unique("tx"),
        "KAFKA__SECRETS": json.dumps({"sasl.password": SECRET}),
        **{f"TOPICS__{name.upper()}": value for name, value in names.items()},
        "TOPICS__PARTITIONS": "1",
        "VIEWS__GROUP": views.group,
        "MEMORY__KIND": "server",
        "MEMORY__URL": qdrant.url,
        "MEMORY__API_KEY": SECRET,
        "LLM__URL": told.url,
        "LLM__API_KEY": SECRET,
        "BUDGET__PRICE_IN": "0",
        "REGISTRY__PASSWORD": SECRET,
        "OTEL__HEADERS": json.dumps({"authorization": SECRET}),
        "LOG__FORMAT": "json",
    }


def _files(folder: Path) -> dict[str, Path]:
    """What commands read and write."""
    made = {
        "contents": write(folder / "contents.jsonl", CONTENTS),
        "tags": write(folder / "tags.jsonl", TAGS),
        "exemplars": write(folder / "exemplars.jsonl", EXEMPLARS),
        "annotated": write(folder / "annotated.jsonl", ANNOTATED),
        "out": folder / "out.json",
        "written": folder / "written.jsonl",
        "cache": folder / "cache",
        "collection": folder / "collection",
        "snapshot": folder / "snapshot",
    }
    _collection(made["collection"])
    return made


def _collection(folder: Path) -> None:
    """A folder as `tagbus evaluate` reads it."""
    folder.mkdir()
    (folder / "labels.tsv").write_text(
        "".join(f"{n}\thttp://example.org/{n}\t{tag.name}\n" for n, tag in enumerate(TAGS))
    )
    for name, some in {"train": EXEMPLARS[:40], "val": EXEMPLARS[40:50], "test": EXEMPLARS[50:]}.items():
        (folder / f"{name}.tsv").write_text("".join(f"{one.title}\t{one.accepted[0][1:]}\n" for one in some))
