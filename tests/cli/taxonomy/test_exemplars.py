"""`tagbus exemplars`: a corpus becomes exemplars."""

import json
from pathlib import Path

import pytest

from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.local.mock import MockCluster
from tests.cli.harness import Answer, Cli, process, write
from tests.kafka import feedback_log
from tests.support import consume_all, produce

A, B = "http://example.org/a", "http://example.org/b"
TAGS = [Tag(id=A, name="ants"), Tag(id=B, name="bees")]


class Topics:
    """Topics with two tags on the mock cluster, and the command on them."""

    def __init__(self, cluster: MockCluster, cli: Cli) -> None:
        for name in ("tags", "exemplars", "feedback"):
            cluster.topic(name, 2)
        self.address = cluster.address
        self._cli = cli

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> Answer:
        return self._cli(*words, stdin=stdin, KAFKA__BROKERS=self.address)

    def exemplars(self) -> dict[bytes, Exemplar]:
        """What a joiner makes of what was published."""
        found = feedback_log.replayed(self.address, "feedback")
        return {one.key.encode(): one for one in found.values() if one is not None}

    def join(self) -> None:
        """Publish it as a joiner does."""
        joined = [(key, encode(one), []) for key, one in self.exemplars().items()]
        produce(self.address, "exemplars", joined)


@pytest.fixture
def topics(mock_kafka: MockCluster, tagbus: Cli, tmp_path: Path) -> Topics:
    made = Topics(mock_kafka, tagbus)
    assert made("publish", write(tmp_path / "tags.jsonl", TAGS), "--to", "tags").code == 0
    return made


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.tsv"
    path.write_text(f"Ants at home\t<{A}>\nBees in the city\t<{B}> <http://example.org/z>\n")
    return path


class TestImport:
    def test_a_corpus_becomes_exemplars_of_people(self, topics: Topics, corpus: Path) -> None:
        answer = topics("exemplars", "import", corpus)
        assert (answer.code, answer.out) == (0, "2 added, 0 changed, 0 unchanged\n")
        assert answer.err.splitlines() == [
            "note: tags that are not in force: 1, by their uses: 'http://example.org/z' (1)",
            "published 2 of 2 records to feedback",
        ]
        found = topics.exemplars()
        assert {(one.text, one.accepted) for one in found.values()} == {
            ("Ants at home", (A,)),
            ("Bees in the city", (B, "http://example.org/z")),
        }
        assert all(key == one.key.encode() and key.endswith(b"/people") for key, one in found.items())

    def test_the_same_again_publishes_nothing(self, topics: Topics, corpus: Path) -> None:
        assert topics("exemplars", "import", corpus).code == 0
        topics.join()
        assert topics("exemplars", "import", corpus).out == "0 added, 0 changed, 2 unchanged\n"
        assert len(consume_all(topics.address, "feedback")) == 2

    def test_the_machine_s_are_published_as_they_are(self, topics: Topics, corpus: Path) -> None:
        answer = topics("exemplars", "import", corpus, "--source", "machine")
        assert answer.err.splitlines()[-1] == "published 2 of 2 records to exemplars"
        keys = [message.key() or b"" for message in consume_all(topics.address, "exemplars")]
        assert [key.rpartition(b"/")[2] for key in keys] == [b"machine", b"machine"]
        assert topics.exemplars() == {}

    def test_an_exemplar_that_accepts_and_rejects_a_tag_is_wrong(self, topics: Topics) -> None:
        line = json.dumps({"id": "a", "text": "x", "accepted": [A], "rejected": [A]}).encode()
        answer = topics("exemplars", "import", "-", "--form", "jsonl", stdin=line)
        assert answer.code == 3
        assert f"rejected: '{A}' is wrong, expected no tag that is accepted too" in answer.err

    def test_a_dry_run_publishes_nothing(self, topics: Topics, corpus: Path) -> None:
        assert topics("exemplars", "import", corpus, "--dry-run").out == "2 added, 0 changed, 0 unchanged\n"
        assert topics.exemplars() == {}

    def test_scopes_that_a_corpus_lacks_are_cleared_only_by_force(self, topics: Topics, tmp_path: Path) -> None:
        """Given an exemplar of one tenant, a corpus without scopes does not show its text to the others."""
        path = tmp_path / "corpus.csv"
        path.write_text(f"id,text,accepted,scopes\n1,Ants at home,{A},tenant-7\n")
        assert topics("exemplars", "import", path).code == 0
        topics.join()
        path.write_text(f"id,text,accepted\n1,Ants at home,{A}|{B}\n")

        would = "show 1 exemplar to contents that do not see them now ('1')"
        assert f"note: this import would {would}\n" in topics("exemplars", "import", path, "--dry-run").err
        answer = topics("exemplars", "import", path)
        assert (answer.code, answer.out) == (2, "0 added, 1 changed, 0 unchanged\n")
        assert answer.err.splitlines()[-1] == (
            f"tagbus: {path} would {would}: --force does it; expected their `scopes` in the file"
        )
        assert topics.exemplars()[b"1/people"].scopes == ("tenant-7",)

        assert topics("exemplars", "import", path, "--force").code == 0
        assert topics.exemplars()[b"1/people"].scopes == ()

    def test_a_folder_of_texts_names_tags_by_label(self, topics: Topics, tmp_path: Path) -> None:
        folder = tmp_path / "texts"
        folder.mkdir()
        (folder / "doc.txt").write_text("Bees in the city")
        (folder / "doc.key").write_text("bees\nwasps\n")
        answer = topics("exemplars", "import", folder)
        assert "'wasps' (1)" in answer.err
        assert topics.exemplars()[b"doc/people"].accepted == (B,)

    def test_nothing_is_published_where_a_line_is_wrong(self, topics: Topics) -> None:
        text = f"Ants\t<{A}>\nBees\n"
        answer = topics("exemplars", "import", "-", "--form", "annif", stdin=text.encode())
        assert answer.code == 3
        assert answer.err.splitlines() == [
            "-:2: 'Bees' is wrong, expected text, tab, <URI> <URI>",
            "tagbus: wrong contents: 1; nothing is changed",
        ]
        assert topics.exemplars() == {}


class TestConvert:
    def test_it_needs_no_kafka(self, corpus: Path) -> None:
        answer = process("exemplars", "convert", corpus)
        assert (answer.code, answer.err) == (0, "")
        assert [json.loads(line)["text"] for line in answer.lines] == ["Ants at home", "Bees in the city"]

    def test_labels_are_looked_up_in_a_file(self, tagbus: Cli, tmp_path: Path) -> None:
        path, out = tmp_path / "corpus.jsonl", tmp_path / "out.jsonl"
        path.write_text(json.dumps({"document_id": "d", "text": "x", "subjects": [{"label": "bees"}]}))
        tags = write(tmp_path / "tags.jsonl", TAGS)
        assert tagbus("exemplars", "convert", path, "--tags", tags, "--out", out).code == 0
        assert Exemplar.model_validate_json(out.read_bytes()).accepted == (B,)
