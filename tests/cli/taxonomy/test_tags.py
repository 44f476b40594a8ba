"""`tagbus tags`: a vocabulary becomes the topic, and the topic a vocabulary."""

import json
from pathlib import Path

import pytest

from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.mock import MockCluster
from tests.cli.harness import Answer, Cli, process, write
from tests.support import consume_all, produce
from tests.vocabulary.reading import HEAD

TAGS = [Tag(id=f"http://example.org/{letter}", name=f"tag {letter}") for letter in "abcdefghijklmnopqrst"]


class Topic:
    """A topic `tags` on the mock cluster, and the command on it."""

    def __init__(self, cluster: MockCluster, cli: Cli) -> None:
        cluster.topic("tags", 3)
        self.address = cluster.address
        self._cli = cli

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> Answer:
        return self._cli("tags", *words, stdin=stdin, KAFKA__BROKERS=self.address)

    def records(self) -> int:
        return len(consume_all(self.address, "tags"))

    def tags(self) -> list[Tag]:
        """Those in force, by id."""
        answer = self("export")
        assert (answer.code, answer.err) == (0, "")
        return [Tag.model_validate_json(line) for line in answer.lines]


@pytest.fixture
def topic(mock_kafka: MockCluster, tagbus: Cli) -> Topic:
    return Topic(mock_kafka, tagbus)


@pytest.fixture
def filled(topic: Topic, tmp_path: Path) -> Topic:
    """With TAGS on it."""
    assert topic("import", write(tmp_path / "tags.jsonl", TAGS)).code == 0
    return topic


class TestImport:
    def test_skos_becomes_tags(self, topic: Topic, tmp_path: Path) -> None:
        path = tmp_path / "bees.ttl"
        path.write_text(
            HEAD + ':bees a skos:Concept ; skos:prefLabel "bees"@en , "mehiläiset"@fi ; skos:broader :insects .'
            ':insects a skos:Concept ; skos:prefLabel "insects"@en .'
        )
        answer = topic("import", path, "--language", "en")
        assert (answer.code, answer.out) == (0, "2 added, 0 changed, 0 retired, 0 unchanged\n")
        assert answer.err == "published 2 of 2 records to tags\n"
        assert topic.tags() == [
            Tag(
                id="http://example.org/bees",
                name="bees",
                parents=("http://example.org/insects",),
                names={"fi": "mehiläiset"},
            ),
            Tag(id="http://example.org/insects", name="insects"),
        ]

    def test_only_what_differs_is_published(self, filled: Topic, tmp_path: Path) -> None:
        after = [TAGS[0].model_copy(update={"name": "new"}), *TAGS[1:-1], Tag(id="new", name="new")]
        answer = filled("import", write(tmp_path / "new.jsonl", after))
        assert answer.out == "1 added, 1 changed, 1 retired, 18 unchanged\n"
        assert filled.records() == len(TAGS) + 3
        assert filled.tags() == sorted(after, key=lambda tag: tag.id)

    def test_the_same_file_again_changes_nothing(self, filled: Topic, tmp_path: Path) -> None:
        answer = filled("import", tmp_path / "tags.jsonl")
        assert (answer.out, answer.err) == ("0 added, 0 changed, 0 retired, 20 unchanged\n", "")
        assert filled.records() == len(TAGS)

    def test_a_dry_run_counts_and_changes_nothing(self, filled: Topic, tmp_path: Path) -> None:
        answer = filled("import", write(tmp_path / "new.jsonl", TAGS[:1]), "--dry-run")
        assert (answer.code, answer.out) == (0, "0 added, 0 changed, 19 retired, 1 unchanged\n")
        assert filled.records() == len(TAGS)

    def test_more_than_a_tenth_is_retired_only_by_force(self, filled: Topic, tmp_path: Path) -> None:
        path = write(tmp_path / "new.jsonl", TAGS[:-3])
        answer = filled("import", path)
        assert answer.code == 2
        assert answer.err == (
            f"tagbus: {path} would retire 3 of 20 tags, more than 10%: --force does it, --keep-others keeps them, "
            "`tagbus tags diff` shows them\n"
        )
        assert filled.records() == len(TAGS)
        assert filled("import", path, "--keep-others").out == "0 added, 0 changed, 0 retired, 20 unchanged\n"
        assert filled("import", path, "--force").code == 0
        assert filled.tags() == TAGS[:-3]

    def test_the_hint_of_an_option_that_is_given_is_left_out(self, filled: Topic, tmp_path: Path) -> None:
        path = tmp_path / "old.ttl"
        path.write_text(HEAD + "".join(f":{letter} owl:deprecated true ." for letter in "abc"))
        assert (
            filled("import", path, "--keep-others")
            .one_line()
            .endswith("more than 10%: --force does it, `tagbus tags diff` shows them")
        )

    def test_a_file_without_scopes_shows_no_tenants_tag_to_all_by_mistake(self, topic: Topic, tmp_path: Path) -> None:
        scoped = [tag.model_copy(update={"scopes": ("tenant-1",)}) for tag in TAGS]
        assert topic("import", write(tmp_path / "tags.jsonl", scoped)).code == 0
        path = tmp_path / "names.csv"
        path.write_text(f"id,name\n{TAGS[0].id},tag a\n")
        would = f"show 1 tag to contents that do not see them now ('{TAGS[0].id}')"
        answer = topic("import", path, "--keep-others")
        assert (answer.code, topic.records()) == (2, len(TAGS))
        assert answer.err.splitlines() == [
            f"note: this import would {would}",
            f"tagbus: {path} would {would}: --force does it, `tagbus tags diff` shows them",
        ]
        assert topic("import", path, "--keep-others", "--dry-run").code == 0
        # With what it retires it is one message.
        assert topic("import", path).err.splitlines()[-1] == (
            f"tagbus: {path} would retire 19 of 20 tags, more than 10%, and {would}: "
            "--force does it, --keep-others keeps them, `tagbus tags diff` shows them"
        )
        assert topic("import", path, "--keep-others", "--force").code == 0
        assert topic.tags()[0] == TAGS[0]

    def test_successors_that_lead_nowhere_are_published_only_by_force(self, filled: Topic, tmp_path: Path) -> None:
        path = tmp_path / "lost.csv"
        path.write_text("id,name,replaced_by\na,a,nowhere\nb,b,c\nc,c,b\n")
        answer = filled("import", path, "--keep-others")
        assert (answer.code, filled.records()) == (2, len(TAGS))
        assert answer.err.splitlines()[:2] == [
            "note: this import would replace 1 tag by tags that are neither in the file nor kept on the topic ('a')",
            "note: this import would replace 2 tags in a circle ('b', 'c')",
        ]
        assert filled("import", path, "--keep-others", "--force").code == 0

    def test_a_tenth_is_retired(self, filled: Topic, tmp_path: Path) -> None:
        assert filled("import", write(tmp_path / "new.jsonl", TAGS[:-2])).code == 0

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("x.jsonl", "", "a tag as a JSON object on each line"),
            ("x.csv", "id,name\n", "a row for each tag below the header"),
            ("x.ttl", "", "subjects of type skos:Concept with a skos:prefLabel"),
            ("x.ttl", HEAD + ':a skos:prefLabel "a" .', "subjects of type skos:Concept with a skos:prefLabel"),
            (
                "x.json",
                '[{"id": "a", "name": "A"}]',
                "JSON-LD with subjects of type skos:Concept; for tags as JSON objects, one a line, --form jsonl",
            ),
        ],
    )
    def test_a_file_without_tags_is_refused(
        self, filled: Topic, tmp_path: Path, name: str, text: str, expected: str
    ) -> None:
        path = tmp_path / name
        path.write_text(text)
        answer = filled("import", path, "--keep-others", "--force")
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.splitlines()[-1] == f"tagbus: {path} has no tags; expected {expected}"
        assert filled.records() == len(TAGS)

    @pytest.mark.parametrize("option", ["--scheme", "--collection"])
    def test_what_chooses_concepts_of_skos_is_refused_for_another_form(self, tagbus: Cli, option: str) -> None:
        answer = tagbus("tags", "export", "--from", "-", "--form", "csv", option, "x", stdin=b"id,name\na,ants\n")
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == f"tagbus: {option} 'x' has no effect on -, which is csv, expected a file of SKOS\n"
        # Nor is there anything to choose from on the topic.
        answer = tagbus("tags", "export", option, "x")
        assert answer.err == f"tagbus: {option} chooses what is read from a file: give --from, or leave it out\n"

    def test_what_a_file_deprecates_is_retired_also_where_others_stay(self, filled: Topic, tmp_path: Path) -> None:
        path = tmp_path / "old.ttl"
        path.write_text(HEAD + ":a owl:deprecated true .")
        assert filled("import", path, "--keep-others").out == "0 added, 0 changed, 1 retired, 19 unchanged\n"
        assert filled.tags() == TAGS[1:]

    def test_what_a_file_replaces_keeps_its_record_and_names_its_successor(self, filled: Topic, tmp_path: Path) -> None:
        path = tmp_path / "old.ttl"
        path.write_text(
            HEAD + ':a rdfs:label "tag a" ; owl:deprecated true ; dct:isReplacedBy :b .'
            ':b a skos:Concept ; skos:prefLabel "tag b" .'
        )
        assert filled("import", path, "--keep-others").out == (
            "0 added, 0 changed, 1 replaced, 0 retired, 19 unchanged\n"
        )
        assert filled.tags()[0].replaced_by == ("http://example.org/b",)
        assert "replaced by  http://example.org/b" in filled("show", "http://example.org/a").lines
        assert filled("export", "--to", "annif").lines[0] == "<http://example.org/b>\ttag b"
        # It is no longer in force, so a file without it changes nothing.
        answer = filled("import", write(tmp_path / "new.jsonl", TAGS[1:]))
        assert answer.out == "0 added, 0 changed, 0 retired, 19 unchanged\n"

    def test_nothing_is_published_where_a_tag_is_wrong(self, topic: Topic, tmp_path: Path) -> None:
        path = tmp_path / "tags.csv"
        path.write_text("id,name\na,x\nb,\n" + "c,\n" * 30)
        answer = topic("import", path)
        assert answer.code == 3
        lines = answer.err.splitlines()
        assert lines[0] == f"{path}:3: name: '' is wrong, expected a string of 1 to 512 characters"
        assert lines[-2:] == ["and more", "tagbus: wrong tags: 31; nothing is changed"]
        assert topic.records() == 0

    def test_cycles_and_tags_that_are_their_own_parents_are_said(self, topic: Topic, tmp_path: Path) -> None:
        pairs = [("a", "b"), ("b", "a"), ("c", "c"), ("d", "e")]
        answer = topic("import", write(tmp_path / "t.jsonl", [Tag(id=i, name=i, parents=(p,)) for i, p in pairs]))
        assert answer.code == 0
        assert answer.err.splitlines()[:3] == [
            "note: tags that are broader than themselves: 1 ('c')",
            "note: tags with a broader tag that is neither in the file nor kept on the topic: 1 ('d')",
            "note: 2 tags are broader than each other in a cycle: 'a', 'b'",
        ]

    def test_one_that_was_stopped_publishes_the_rest_when_run_again(
        self, topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, send = write(tmp_path / "tags.jsonl", TAGS), TopicWriter.send

        def stop_after_seven(writer: TopicWriter, record: Record, partition: int = -1) -> None:
            if writer.sent == 7:
                raise DependencyDown("the broker is gone")
            send(writer, record, partition)

        with monkeypatch.context() as patch:
            patch.setattr(TopicWriter, "send", stop_after_seven)
            answer = topic("import", path)
        assert answer.code == 4
        assert answer.err.splitlines()[0] == "published 7 of 20 records to tags; the same import publishes the rest"
        assert topic("import", path).out == "13 added, 0 changed, 0 retired, 7 unchanged\n"
        assert (topic.records(), topic.tags()) == (len(TAGS), TAGS)

    def test_standard_input_needs_a_form(self, topic: Topic) -> None:
        assert "its form is not clear from its name; give --form" in topic("import", "-").one_line()
        assert topic("import", "-", "--form", "csv", stdin=b"id,name\na,b\n").code == 0

    def test_a_compressed_file_is_told_by_how_it_begins(self, topic: Topic, tmp_path: Path) -> None:
        path = tmp_path / "tags.ttl"
        path.write_bytes(b"\xfd7zXZ\x00" + bytes(100))
        assert topic("import", path).one_line() == (
            f"tagbus: {path} is compressed by xz, expected text in UTF-8: `xz -dc {path} | tagbus ... -`"
        )


class TestDiff:
    def test_each_change_and_its_fields(self, filled: Topic, tmp_path: Path) -> None:
        after = [TAGS[0].model_copy(update={"name": "new", "aliases": ("x",)}), *TAGS[1:-1], Tag(id="t", name="t")]
        answer = filled("diff", write(tmp_path / "new.jsonl", after))
        assert answer.lines == [
            "+ t  t",
            "~ http://example.org/a  new",
            "    name: tag a -> new",
            "    aliases: none -> x",
            "- http://example.org/t  tag t",
        ]
        assert answer.err == "1 added, 1 changed, 1 retired, 18 unchanged\n"

    def test_two_files_need_no_kafka(self, tagbus: Cli, tmp_path: Path) -> None:
        new, old = write(tmp_path / "new.jsonl", TAGS), write(tmp_path / "old.jsonl", TAGS[1:])
        assert tagbus("tags", "diff", new, "--against", old).lines == ["+ http://example.org/a  tag a"]

    def test_every_tag_is_new_against_an_empty_file(self, tagbus: Cli, tmp_path: Path) -> None:
        new, empty = write(tmp_path / "new.jsonl", TAGS[:1]), write(tmp_path / "old.jsonl", list[Tag]())
        assert tagbus("tags", "diff", new, "--against", empty).lines == ["+ http://example.org/a  tag a"]


class TestExport:
    @pytest.mark.parametrize("suffix", ["ttl", "nt", "rdf", "jsonld", "csv", "tsv", "jsonl"])
    def test_it_is_imported_again_without_a_change(self, filled: Topic, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out.{suffix}"
        assert filled("export", "--out", path).code == 0
        assert filled("import", path, "--dry-run").out == "0 added, 0 changed, 0 retired, 20 unchanged\n"

    def test_to_standard_output_as_annif_reads_it(self, filled: Topic) -> None:
        assert filled("export", "--to", "annif").lines[0] == "<http://example.org/a>\ttag a"

    def test_one_file_becomes_another_without_kafka(self, tmp_path: Path) -> None:
        path = tmp_path / "tags.ttl"
        path.write_text(HEAD + ':a a skos:Concept ; skos:prefLabel "a"@en , "b"@fi .')
        answer = process("tags", "export", "--from", path, "--language", "fi")
        assert answer.code == 0
        assert json.loads(answer.out)["name"] == "b"

    def test_one_that_fails_leaves_the_file_as_it_is(self, tagbus: Cli, tmp_path: Path) -> None:
        source, out = write(tmp_path / "tags.jsonl", TAGS), tmp_path / "kept.ttl"
        out.write_text("precious")
        out.chmod(0o640)
        link = tmp_path / "link.ttl"
        link.symlink_to(out)
        assert tagbus("tags", "export", "--from", source, "--out", link, "--language", "not one").code == 2
        assert out.read_text() == "precious"
        assert tagbus("tags", "export", "--from", source, "--out", link).code == 0
        assert "tag a" in out.read_text()
        assert (link.is_symlink(), out.stat().st_mode & 0o777) == (True, 0o640)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.ttl", "link.ttl", "tags.jsonl"]

    def test_a_device_is_written_as_it_is(self, tagbus: Cli, tmp_path: Path) -> None:
        source = write(tmp_path / "tags.jsonl", TAGS)
        assert tagbus("tags", "export", "--from", source, "--out", "/dev/null", "--to", "jsonl").code == 0
        assert Path("/dev/null").is_char_device()

    def test_a_file_that_cannot_be_written_is_one_line(self, filled: Topic, tmp_path: Path) -> None:
        answer = filled("export", "--out", tmp_path / "none" / "out.csv")
        assert (answer.code, answer.one_line()[-40:]) == (2, "annot be written: No such file or directory"[-40:])


class TestShow:
    def test_by_id_or_any_name_with_its_neighbours(self, topic: Topic, tmp_path: Path) -> None:
        found = [
            Tag(id="t1", name="bees", aliases=("honeybees",), parents=("t2", "t9"), names={"fi": "mehiläiset"}),
            Tag(id="t2", name="insects"),
        ]
        assert topic("import", write(tmp_path / "t.jsonl", found)).code == 0
        for what in ("t1", "Bees", "honeybees", "MEHILÄISET", "mehila\u0308iset"):
            lines = topic("show", what).lines
            assert lines[:-1] == [
                "id         t1",
                "name       bees",
                "name (fi)  mehiläiset",
                "aliases    honeybees",
                "broader    t2  insects",
                "           t9  (not in force)",
            ]
            assert lines[-1].startswith("record     tags:")
        assert "narrower  t1  bees" in topic("show", "t2").lines
        assert Tag.model_validate_json(topic("show", "t1", "--as", "json").out) == found[0]

    @pytest.mark.parametrize("old", [0, 1])
    def test_of_a_key_that_moved_to_another_partition_the_newer_record_counts(self, topic: Topic, old: int) -> None:
        """A key is in two partitions once the topic got more of them."""

        def put(partition: int, milliseconds: int, name: str, *more: Tag) -> None:
            records = [encode_record(one) for one in (*more, Tag(id="t", name=name))]
            given = [(one.key, one.value, []) for one in records]
            produce(topic.address, "tags", given, partition, milliseconds)

        put(old, 1_000, "old name", *(Tag(id=f"t{number}", name="x") for number in range(1_000)))
        put(1 - old, 2_000, "new name")
        assert "name    new name" in topic("show", "t").lines

    def test_one_that_is_retired_or_never_was_is_an_error(self, filled: Topic) -> None:
        assert filled("show", "none").one_line() == "tagbus: tags has no tag in force with the id or name 'none'"
