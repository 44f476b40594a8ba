"""`tagbus synthesize` and `tagbus compare`: written by a scripted server, measured with the real encoder."""

import json
from pathlib import Path

import pytest

from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar, Tag
from tests.cli.harness import Cli
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.llm import answers
from tests.llm.scripted import Request, Say, Server, serving
from tests.support import consume_all, create_topics, unique

# Names that say nothing of what their contents are about, and what they are about.
ABOUT = {
    "T-17": ("Honey bees in winter", "How beekeepers feed a hive of honey bees."),
    "T-23": ("Volcanoes of Iceland", "Lava and eruptions of volcanoes in Iceland."),
    "T-31": ("Medieval castles", "Walls and towers of castles in the Middle Ages."),
}
TAGS = [Tag(id=name.lower(), name=name) for name in ABOUT] + [Tag(id="known", name="Chess", description="the game")]
PEOPLE = [Exemplar(id=f"p{number}", title=f"Chess openings {number}", accepted=("known",)) for number in range(4)]
TEST = [
    Exemplar(id="x1", title="Feeding bees before spring", text="The hive and its honey.", accepted=("t-17",)),
    Exemplar(id="x2", title="An eruption near Reykjavik", text="A volcano and its lava.", accepted=("t-23",)),
    Exemplar(id="x3", title="A tower of the thirteenth century", text="A castle in France.", accepted=("t-31",)),
    Exemplar(id="x4", title="Chess endgames", accepted=("known",)),
]


def author(request: Request) -> Say:
    """Knows what each tag is about."""
    question = request.body["messages"][-1]["content"].rpartition("</data>")[2]
    (name,) = (name for name in ABOUT if f'"{name}"' in question)
    title, text = ABOUT[name]
    if "Invent" in question:
        return Say(answers.completion(json.dumps({"contents": [{"title": title, "text": text}]})))
    return Say(answers.completion(json.dumps({"description": text})))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name, events in (("tags", TAGS), ("exemplars", PEOPLE), ("test", TEST)):
        made[name] = tmp_path / f"{name}.jsonl"
        made[name].write_bytes(b"".join(encode(one) + b"\n" for one in events))
    return made


def given(server: Server) -> dict[str, str]:
    return {"LLM__URL": server.url, "LLM__MODEL": "m", "BUDGET__PRICE_IN": "1"}


def test_exemplars_are_written_and_compare_says_what_they_do_to_rare_tags(
    tagbus: Cli, files: dict[str, Path], tmp_path: Path
) -> None:
    out, memory = tmp_path / "written.jsonl", ("--tags", files["tags"], "--exemplars", files["exemplars"])
    with serving(author) as server:
        answer = tagbus("synthesize", "exemplars", *memory, "--out", out, "--each", "1", settings=given(server))
        assert answer.code == 0, answer.err
        assert answer.err.splitlines()[-1] == "3 written for 3 tags: 3 calls, 450 tokens in, 3 out"
        # Run again, nothing is left to be written.
        again = tagbus("synthesize", "exemplars", *memory, "--out", out, "--each", "1", settings=given(server))
        assert (again.code, len(server.to("/chat/completions"))) == (0, 3)
    written = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert {one["accepted"][0] for one in written} == {"t-17", "t-23", "t-31"}
    assert {(one["source"], one["made_by"]["model"], one["made_by"]["prompt"]) for one in written} == {
        ("machine", "test-model", "v1")
    }
    figures = tmp_path / "figures.json"
    answer = tagbus("compare", files["test"], *memory, "--with", out, "--out", figures)
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in json.loads(figures.read_bytes())["rows"]}
    assert rows["R@10 new"]["after"] > rows["R@10 new"]["before"]
    assert rows["R@10 new"]["contents"] == 3
    # What was written never takes a place that people's exemplars gave.
    chess = tagbus("tag", files["test"], *memory, "--exemplars", files["exemplars"])
    assert json.loads(chess.lines[3])["tags"][0]["id"] == "known"


def test_descriptions_are_written_for_bare_names(tagbus: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    out, memory = tmp_path / "tags-2.jsonl", ("--tags", files["tags"])
    # Lines of other programs, and the half line of a killed run.
    out.write_bytes(b'[1, 2]\n123\n{"accepted": 5}\n{"accepted": [{}]}\n' + b"[" * 100_000 + b'\n{"id": "t-')
    others = len(out.read_bytes().splitlines())
    with serving(author) as server:
        answer = tagbus("synthesize", "descriptions", *memory, "--out", out, "--most", "2", settings=given(server))
        assert answer.code == 0, answer.err
        answer = tagbus("synthesize", "descriptions", *memory, "--out", out, settings=given(server))
        assert len(server.to("/chat/completions")) == 3
    written = out.read_bytes().splitlines(keepends=True)[others:]
    tags = {one["id"]: one for one in map(json.loads, written)}
    out.write_bytes(b"".join(written))
    assert {tag["description"] for tag in tags.values()} == {text for _, text in ABOUT.values()}
    assert tags["t-17"]["made_by"] == {"model": "test-model", "prompt": "v1"}
    answer = tagbus("compare", files["test"], *memory, "--with-tags", out)
    assert answer.code == 0, answer.err
    (new,) = (line for line in answer.lines if line.startswith("R@10 new"))
    before, after = new.split()[3:5]
    assert float(after) > float(before)


def test_a_spent_budget_ends_it_and_a_second_run_goes_on(tagbus: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    out, memory = tmp_path / "written.jsonl", ("--tags", files["tags"], "--exemplars", files["exemplars"])
    call = ("synthesize", "exemplars", *memory, "--out", out)
    broken = [Say({"error": {"message": "quota", "code": "insufficient_quota"}}, 429)] * 2
    with serving(lambda request: broken.pop() if len(server.requests) in {2, 3} else author(request)) as server:
        answer = tagbus(*call, settings=given(server) | {"LLM__IN_FLIGHT": "1"})
        assert answer.code == 3
        assert answer.err.splitlines()[-1] == (
            "tagbus: nothing was written for 2 of 3 tags: 1 dependency, 1 unasked; run again for these"
        )
        broken.clear()
        server.script = author
        assert tagbus(*call, settings=given(server)).code == 0
    assert len(out.read_bytes().splitlines()) == 3


@pytest.mark.kafka
def test_what_was_written_is_published_as_the_machines(kafka: Broker, tagbus: Cli, tmp_path: Path) -> None:
    names = {name: unique(name) for name in ("tags", "exemplars", "budget")}
    create_topics(kafka.address, dict.fromkeys(names.values(), (1, {"cleanup.policy": "compact"})))
    on_topics = settings(kafka, names)
    file = tmp_path / "tags.jsonl"
    file.write_bytes(b"".join(encode(tag) + b"\n" for tag in TAGS if tag.name in ABOUT))
    assert tagbus("publish", file, "--to", "tags", settings=on_topics).code == 0
    with serving(author) as server:
        more = on_topics | given(server) | {"BUDGET__TOKENS_PER_DAY": "100000"}
        answer = tagbus("synthesize", "exemplars", "--publish", "--most", "2", settings=more)
        assert answer.code == 0, answer.err
        # What it wrote before is on the topic: the third tag is left.
        assert tagbus("synthesize", "exemplars", "--publish", settings=more).code == 0
        assert len(server.to("/chat/completions")) == 3
    found = consume_all(kafka.address, names["exemplars"])
    records = {message.key(): json.loads(message.value() or b"") for message in found}
    assert {key for key, one in records.items() if key == f"{one['id']}/machine".encode()} == records.keys()
    assert {(one["source"], one["made_by"]["prompt"]) for one in records.values()} == {("machine", "v1")}
    # What it took is in the group's budget.
    spent = [json.loads(message.value() or b"") for message in consume_all(kafka.address, names["budget"])]
    assert spent[-1]["worker"].endswith("-synthesize")
    assert spent[-1]["spent"]["tokens"] == 3 * 151


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("synthesize", "exemplars"),
            "no destination for the generated events, expected --out FILE,",
        ),
        (("synthesize", "descriptions", "--out", "x"), "TAGBUS_LLM__URL is not set"),
        (("compare", "f", "--tags", "t"), "both memories are the same: expected --with, --with-tags or both"),
    ],
)
def test_a_mistake_is_one_line(tagbus: Cli, arguments: tuple[str, ...], words: str) -> None:
    answer = tagbus(*arguments)
    assert answer.code == 2
    assert words in answer.one_line()
