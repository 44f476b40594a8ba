"""`tagbus explain`: why a content has its tags and no others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.cli.records import newest
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.local.mock import MockCluster
from tests.cli.harness import Cli, Slice
from tests.support import produce

TAGS = [
    Tag(id="bees", name="beekeeping"),
    Tag(id="roofs", name="roofs", scopes=("ann",)),
    Tag(id="law", name="law of the sea"),
    Tag(id="hives", name="hives"),
    Tag(id="drones", name="drones", replaced_by=("males", "bees")),
]
EXEMPLARS = [
    Exemplar(id="c1", title="Hives of bees on city roofs", accepted=("bees", "roofs", "retired", "drones")),
    Exemplar(id="c2", title="Fisheries and the law of the sea", accepted=("law",)),
    Exemplar(id="asked", title="Bees on the roofs of the city", rejected=("hives",)),
    Exemplar(id="c3", title="Bees on roofs", accepted=("bees",), scopes=("bob",)),
]
KNOWLEDGE = [
    Knowledge(id="rule", kind="rule", title="Hives on roofs", text="Hives on city roofs are beekeeping."),
    Knowledge.model_validate(
        {"id": "old", "kind": "news", "text": "Bees on roofs", "valid_until": "2020-01-01T00:00:00Z"}
    ),
]
ASKED = Content(id="asked", title="Bees on the roofs of the city")


@pytest.fixture
def memory(tmp_path: Path) -> list[str]:
    """The arguments that name a small memory."""
    arguments = []
    for name, events in (("tags", TAGS), ("exemplars", EXEMPLARS), ("knowledge", KNOWLEDGE)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(one.model_dump_json() + "\n" for one in events))
        arguments += [f"--{name}", str(file)]
    return arguments


def explained(tagbus: Cli, memory: list[str], content: Content = ASKED, **settings: str) -> Explanation:
    answer = tagbus("explain", "-", *memory, "--json", stdin=content.model_dump_json().encode(), settings=settings)
    assert answer.code == 0, answer.err
    (line,) = answer.lines
    return Explanation.model_validate_json(line)


def cuts(found: Explanation) -> dict[str, str | None]:
    return {one.id: None if one.cut is None else f"{one.cut.stage}: {one.cut.reason}" for one in found.candidates}


def test_each_candidate_with_how_it_was_found_and_where_it_was_cut(tagbus: Cli, memory: list[str]) -> None:
    found = explained(tagbus, memory)
    candidates = {one.id: one for one in found.candidates}
    bees = candidates["bees"]
    assert bees.found_by == ("C2T", "C2C2T")
    assert bees.cut is None
    assert (bees.place, bees.votes, bees.neighbours[0].id) == (1, 1, "c1")
    assert bees.confidence is not None
    assert bees.similarity is not None
    assert bees.similarity > found.parameters["recall.c2t_threshold"]  # type: ignore[operator]
    assert found.candidates[0].cut is None
    said = cuts(found)
    assert said["roofs"] == "rank: scopes: it is for ann; the content has none"
    assert said["hives"] == "rank: people rejected it for this content"
    assert said["retired"] == "rank: it is not in force: retired, or not on the topic of tags yet"
    assert candidates["retired"].name is None
    assert said["drones"] == "rank: it is not in force: retired, replaced by males, bees"
    assert said["law"] is not None
    assert said["law"].startswith("recall: C2T: similarity ")
    assert said["law"].endswith(" < recall.c2t_threshold 0.35; C2C2T: " + said["law"].partition("C2C2T: ")[2])


def test_what_the_limits_and_the_least_confidence_cut(tagbus: Cli, memory: list[str]) -> None:
    other = ASKED.model_copy(update={"id": "other", "scopes": ("ann",)})
    open_ = {"RECALL__C2T_THRESHOLD": "-1", "RECALL__C2C_THRESHOLD": "-1"}
    said = cuts(explained(tagbus, memory, other, TAGGER__TAGS="1", **open_))
    assert list(said.values()).count(None) == 1
    assert sorted(reason for reason in said.values() if reason and reason.startswith("select")) == [
        f"select: place {place}, tagger.tags is 1" for place in (2, 3, 4)
    ]
    said = cuts(explained(tagbus, memory, other, TAGGER__LEAST_CONFIDENCE="1", **open_))
    assert said["bees"] == "calibrate: confidence below tagger.least_confidence 1"
    said = cuts(explained(tagbus, memory, other, RECALL__C2T_LIMIT="1", RECALL__C2C2T="false", **open_))
    assert {reason for reason in said.values() if reason} >= {
        f"recall: C2T: place {place} by similarity, recall.c2t_limit is 1" for place in (2, 3, 4)
    }


def test_a_tag_that_is_asked_for_is_explained_although_nothing_found_it(tagbus: Cli, memory: list[str]) -> None:
    """Given a tag beyond the nearest ones, and one that there is not, each has its row."""
    line = ASKED.model_dump_json().encode()
    settings = {"RECALL__TAG_KEYS": "1", "RECALL__C2C2T": "false"}
    answer = tagbus("explain", "-", *memory, "--json", "--tag", "law", "--tag", "none", stdin=line, settings=settings)
    found = Explanation.model_validate_json(answer.out)
    law = next(one for one in found.candidates if one.id == "law")
    assert law.found_by == ()
    assert law.similarity is not None
    assert -1 <= law.similarity < 0.35
    said = cuts(found)
    assert said["law"] is not None
    assert said["law"].endswith("< recall.c2t_threshold 0.35")
    assert said["none"] == "rank: it is not in force: retired, or not on the topic of tags yet"
    far = tagbus(
        "explain",
        "-",
        *memory,
        "--json",
        "--tag",
        "law",
        stdin=line,
        settings={**settings, "RECALL__C2T_THRESHOLD": "-1"},
    )
    assert cuts(Explanation.model_validate_json(far.out))["law"] == (
        "recall: C2T: not among the 1 most similar tags (recall.tag_keys)"
    )


def test_neighbours_with_their_tags_and_what_scopes_hide(tagbus: Cli, memory: list[str]) -> None:
    found = explained(tagbus, memory)
    first = found.neighbours[0]
    assert (first.id, first.title, first.counts) == ("c1", "Hives of bees on city roofs", True)
    assert first.tags == {"bees": "beekeeping", "roofs": "roofs", "retired": None, "drones": None}
    assert "c3" not in {one.id for one in found.neighbours}
    assert (found.hidden.tags, found.hidden.exemplars) == (1, 1)
    bobs = explained(tagbus, memory, ASKED.model_copy(update={"id": "x", "scopes": ("bob",)}))
    assert "c3" in {one.id for one in bobs.neighbours}


def test_the_knowledge_that_holds_now(tagbus: Cli, memory: list[str]) -> None:
    found = explained(tagbus, memory)
    assert [(one.id, one.kind) for one in found.knowledge] == [("rule", "rule")]
    assert found.path[-3:] == ("knowledge", "select", "calibrate")
    assert explained(tagbus, memory, KNOWLEDGE__SEGMENTS="0").knowledge == ()


def test_components_say_what_they_gave(tagbus: Cli, memory: list[str]) -> None:
    found = explained(tagbus, memory, COMPONENTS__LITERAL__ENABLED="true", COMPONENTS__BM25__ENABLED="true")
    law = Content(id="l", title="The law of the sea")
    found = explained(tagbus, memory, law, COMPONENTS__LITERAL__ENABLED="true", COMPONENTS__BM25__ENABLED="true")
    best = found.candidates[0]
    assert best.id == "law"
    assert best.found_by == ("C2T", "C2C2T", "literal", "bm25")
    assert (best.components["literal"].place, best.components["literal"].matched) == (1, "law of the sea")
    assert found.scored_by == "recall+literal+bm25"


def test_as_tables_for_people(tagbus: Cli, cutting: Slice) -> None:
    answer = tagbus("explain", cutting.file, *cutting.memory, settings={"COMPONENTS__LITERAL__ENABLED": "true"})
    assert answer.code == 0
    lines = answer.lines
    assert lines[0].startswith(
        f"{cutting.contents[0].id}: {(cutting.contents[0].title or cutting.contents[0].text)[:60]}"
    )
    assert lines[1] == "release minilm-l6-f16-1, literal literal-1-en"
    assert lines[2] == "confidence by none, scored by recall+literal"
    for title in ("candidates", "neighbours"):
        assert title in [line.strip() for line in lines]
    assert "kept" in answer.out
    assert "C2C2T" in answer.out


def test_what_could_move_a_cursor_is_left_out(tagbus: Cli, tmp_path: Path) -> None:
    """Given control characters in content, tag, neighbour, segment and scope, none of them reaches the terminal."""
    evil = "\x1b[2J\x9b31m\u202e\r\x07"
    events: Mapping[str, Any] = {
        "tags": {"id": f"t{evil}", "name": f"bees{evil}", "scopes": [f"s{evil}"]},
        "exemplars": {"id": f"e{evil}", "title": f"bees{evil}", "accepted": [f"t{evil}"], "scopes": [f"s{evil}"]},
        "knowledge": {"id": f"k{evil}", "kind": f"r{evil}", "title": f"bees{evil}", "text": f"bees{evil}"},
    }
    arguments = []
    for name, event in events.items():
        (tmp_path / name).write_text(json.dumps(event))
        arguments += [f"--{name}", str(tmp_path / name)]
    content = json.dumps({"id": f"a{evil}", "title": f"bees{evil}", "scopes": [f"s{evil}"]}).encode()
    answer = tagbus("explain", "-", *arguments, stdin=content)
    assert answer.code == 0, answer.err
    assert not set("\x1b\x9b\u202e\r\x07") & set(answer.out + answer.err)
    assert "bees[2J" in answer.out
    as_json = tagbus("explain", "-", *arguments, "--json", stdin=content)
    assert not set("\x1b\r\x07") & set(as_json.out)


def test_a_table_shows_as_many_candidates_as_asked(tagbus: Cli, cutting: Slice) -> None:
    line = cutting.contents[0].model_dump_json().encode()
    answer = tagbus("explain", "-", *cutting.memory, "--most", "2", stdin=line)
    assert any("more candidates; --json shows all" in one for one in answer.lines)


def test_a_wrong_line_is_named(tagbus: Cli, memory: list[str]) -> None:
    answer = tagbus("explain", "-", *memory, stdin=b'{"id": "a"}')
    assert answer.code == 2
    assert "-:1: text: " in answer.err.splitlines()[-1]


def test_memory_is_named_whole_or_not_at_all(tagbus: Cli, memory: list[str]) -> None:
    answer = tagbus("explain", "-", *memory[2:], stdin=b"")
    assert answer.code == 2
    assert answer.one_line().startswith("tagbus: --exemplars and --knowledge are given without --tags: ")


class TestTopics:
    """A content by its id, and memory as a worker has it, on the mock cluster."""

    @pytest.fixture
    def settings(self, mock_kafka: MockCluster) -> dict[str, str]:
        self.address = mock_kafka.address
        for name in ("content", "tags", "exemplars", "knowledge"):
            mock_kafka.topic(name, 1)
        for name, events in (("tags", TAGS), ("exemplars", EXEMPLARS), ("knowledge", KNOWLEDGE)):
            records = [encode_record(one) for one in events]
            produce(self.address, name, [(one.key, one.value, []) for one in records])
        return {"KAFKA__BROKERS": self.address}

    def publish(self, *contents: Content | str) -> None:
        """Contents, or ids of contents that are withdrawn."""
        records = [Record(one.encode(), None) if isinstance(one, str) else encode_record(one) for one in contents]
        produce(self.address, "content", [(one.key, one.value, []) for one in records])

    def test_the_newest_version_of_a_content_over_the_memory_topics(
        self, tagbus: Cli, settings: dict[str, str]
    ) -> None:
        old = ASKED.model_copy(update={"title": "Quarterly results", "version": 1})
        self.publish(ASKED.model_copy(update={"version": 2}), Content(id="b", title="other"), old)
        answer = tagbus("explain", "asked", "--json", settings=settings)
        assert answer.code == 0, answer.err
        found = Explanation.model_validate_json(answer.out)
        assert found.title == ASKED.title
        assert found.candidates[0].id == "bees"
        assert found.versions.taxonomy == {"0": len(TAGS) - 1}
        assert [one.id for one in found.knowledge] == ["rule"]

    def test_one_that_is_not_there_or_was_withdrawn_is_one_line(self, tagbus: Cli, settings: dict[str, str]) -> None:
        self.publish(ASKED, "asked")
        for name, said in (
            ("asked", "content 'asked' was withdrawn from topic content; explain a FILE that holds it"),
            ("b" * 300, "is neither a file nor a content among the records of topic"),
        ):
            answer = tagbus("explain", name, settings=settings)
            assert answer.code == 2
            assert said in answer.err.splitlines()[-1]

    def test_so_many_records_are_read_at_most(
        self, tagbus: Cli, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(newest, "MOST", 2)
        self.publish(ASKED, *(Content(id=f"c{n}", title="other") for n in range(3)))
        answer = tagbus("explain", "asked", settings=settings)
        assert answer.code == 2
        assert "nor a content among the newest 2 records of topic" in answer.err.splitlines()[-1]
