"""Corpora to exemplars: JSON lines, tables, and each of Annif's formats."""

import io
import json
from pathlib import Path

import pytest

from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary import corpus, corpus_folder
from tagbus.stream.vocabulary.corpus import Form, Known
from tagbus.stream.vocabulary.entry import Remarks, Wrong

A, B = "http://example.org/a", "http://example.org/b"


def read(text: str | bytes, form: Form) -> list[Known | Wrong]:
    data = text.encode() if isinstance(text, str) else text
    return list(corpus.read("file", io.BytesIO(data), form, Remarks()))


def one(text: str | bytes, form: Form) -> Known:
    (found,) = read(text, form)
    assert isinstance(found, Known)
    return found


def wrong(text: str | bytes, form: Form) -> str:
    (found,) = read(text, form)
    assert isinstance(found, Wrong)
    return str(found)


class TestShortTexts:
    def test_text_tab_and_uris(self) -> None:
        found = one(f"Bees in the city\t<{A}> <{B}>\n", "annif").exemplar
        assert (found.text, found.accepted, found.source) == ("Bees in the city", (A, B), "people")

    def test_the_same_text_has_the_same_id_anywhere(self) -> None:
        first, second = read(f"x\t<{A}>\n", "annif") + read(f"\ny\t<{A}>\nx\t<{B}>\n", "annif")[1:]
        assert isinstance(first, Known)
        assert isinstance(second, Known)
        assert first.exemplar.id == second.exemplar.id
        assert second.place == "file:3"

    def test_a_line_without_a_tab_is_wrong(self) -> None:
        assert wrong("Bees\n", "annif") == "file:1: 'Bees' is wrong, expected text, tab, <URI> <URI>"

    @pytest.mark.parametrize("uris", ["Hello t5", f"<{A}> Hello", "Hello\t<t5>"])
    def test_a_tag_that_is_not_in_angle_brackets_is_wrong(self, uris: str) -> None:
        assert wrong(f"1\t{uris}\n", "annif") == "file:1: 'Hello' is wrong, expected text, tab, <URI> <URI>"

    @pytest.mark.parametrize("uris", [f"<{A}>,<{B}>", f"<{A}>, <{B}>", f"<{A}><{B}>", f"<{A},{B}>"])
    def test_uris_with_something_else_than_a_space_between_are_wrong(self, uris: str) -> None:
        """They would be one tag that no taxonomy has."""
        assert "is wrong, expected text, tab, <URI> <URI>" in wrong(f"Bees\t{uris}\n", "annif")

    @pytest.mark.parametrize("text", ["", " ", "\u200b"])
    def test_a_line_without_a_text_is_left_out_and_that_is_said(self, text: str) -> None:
        """All of them would be one content, with the tags of each."""
        remarks = Remarks()
        lines = f"{text}\t<{A}>\n{text}\t<{B}>\n".encode()
        assert list(corpus.read("file", io.BytesIO(lines), "annif", remarks)) == []
        assert list(remarks.lines()) == ["file:1: contents without a text are left out (and 1 more)"]


class TestTable:
    @pytest.mark.parametrize("uris", [f"{A},{B}", f"<{A}>;<{B}>", f"{A}, {B}"])
    def test_uris_in_annifs_csv_with_something_else_than_a_space_between_are_wrong(self, uris: str) -> None:
        found = wrong(f'text,subject_uris\nBees,"{uris}"\n', "csv")
        assert found.startswith("file:2: subject_uris: ")
        assert "is wrong, expected URIs with spaces between" in found

    def test_annifs_csv(self) -> None:
        text = f'document_id,text,subject_uris,title\nd1,"Bees, in the city",<{A}> {B},Bees\n'
        assert one(text, "csv").exemplar == Exemplar(id="d1", title="Bees", text="Bees, in the city", accepted=(A, B))

    @pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
    def test_ours(self, form: Form, delimiter: str) -> None:
        header = delimiter.join(["id", "text", "accepted", "rejected", "time"])
        row = delimiter.join(["d1", "x", f"{A}|{B}", "c", "2026-01-31T09:30:00Z"])
        found = one(f"{header}\n{row}\n", form).exemplar
        assert (found.accepted, found.rejected, found.time is not None) == ((A, B), ("c",), True)

    def test_a_row_of_annif_that_ends_early_is_still_annifs(self) -> None:
        found = one("text,subject_uris\nBees\n", "csv").exemplar
        assert (found.text, found.accepted) == ("Bees", ())

    def test_a_time_that_is_none_is_named(self) -> None:
        assert "time: 'soon' is wrong, expected an RFC 3339 time" in wrong("id,accepted,time\na,b,soon\n", "csv")

    def test_a_header_of_neither_is_refused(self) -> None:
        with pytest.raises(UserError) as raised:
            read("text,subjects\n", "csv")
        assert str(raised.value) == (
            "file:1: the header has 'text', 'subjects', "
            "expected columns `id` and `accepted`, or Annif's `text` and `subject_uris`"
        )


class TestJsonLines:
    def test_ours(self) -> None:
        event = Exemplar(id="d1", text="x", accepted=(A,), rejected=(B,))
        assert one(event.model_dump_json(), "jsonl").exemplar == event

    def test_annifs(self) -> None:
        text = json.dumps(
            {"document_id": "d1", "text": "x", "metadata": {"title": "t"}, "subjects": [{"uri": A}, {"label": "ants"}]}
        )
        found = one(text, "jsonl")
        assert found.exemplar == Exemplar(id="d1", title="t", text="x", accepted=(A,))
        assert found.labels == ("ants",)

    @pytest.mark.parametrize("line", ['{"text": 3}', "[1]", '{"subjects": [{"uri": 3}]}', "{", "3"])
    def test_any_other_line_is_named(self, line: str) -> None:
        assert wrong(line, "jsonl").startswith("file:1: ")


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "a.txt").write_text("Bees")
        (tmp_path / "a.tsv").write_text(f"<{A}>\tbees\n<{B}>\n")
        (tmp_path / "b.txt").write_text("Ants")
        (tmp_path / "b.key").write_text("\ufeffants\ninsects\n")
        (tmp_path / "c.json").write_text(json.dumps({"text": "Wasps", "subjects": [{"label": "wasps"}]}))
        return tmp_path

    def test_texts_with_their_subjects(self, folder: Path) -> None:
        first, second, third = (found for found in corpus_folder.read(folder, Remarks()) if isinstance(found, Known))
        assert first.exemplar == Exemplar(id="a", text="Bees", accepted=(A, B))
        assert (second.exemplar.id, second.labels) == ("b", ("ants", "insects"))
        assert (third.exemplar.id, third.exemplar.text, third.labels) == ("c", "Wasps", ("wasps",))

    def test_a_text_without_subjects_is_left_out_and_that_is_said(self, folder: Path) -> None:
        (folder / "d.txt").write_text("Nobody knows")
        remarks = Remarks()
        assert len(list(corpus_folder.read(folder, remarks))) == 3
        assert list(remarks.lines()) == [
            f"{folder / 'd.txt'}: texts without a .tsv or .key of the same name are left out"
        ]

    def test_what_holds_no_text_is_left_out_and_that_is_said(self, folder: Path) -> None:
        (folder / "a.txt").write_text("\n")
        (folder / "d.txt.gz").write_bytes(b"")
        remarks = Remarks()
        assert len(list(corpus_folder.read(folder, remarks))) == 2
        assert list(remarks.lines()) == [
            f"{folder / 'a.txt'}: contents without a text are left out",
            f"{folder / 'd.txt.gz'}: compressed files are left out: unpack them",
        ]

    def test_a_folder_without_texts_is_said(self, tmp_path: Path) -> None:
        remarks = Remarks()
        assert list(corpus_folder.read(tmp_path, remarks)) == []
        assert list(remarks.lines()) == [f"{tmp_path}: the folder has no .txt or .json"]

    def test_a_long_text_is_cut_and_that_is_said(self, folder: Path) -> None:
        (folder / "a.txt").write_text("ä" * 600_000)
        remarks = Remarks()
        first = next(corpus_folder.read(folder, remarks))
        assert isinstance(first, Known)
        assert first.exemplar.text == "ä" * 500_000
        assert list(remarks.lines()) == [f"{folder / 'a.txt'}: a text of more than 500000 characters is cut"]

    def test_a_file_that_is_not_utf_8_is_named(self, folder: Path) -> None:
        (folder / "a.txt").write_bytes("Größe".encode("latin-1"))
        (found,) = (one for one in corpus_folder.read(folder, Remarks()) if isinstance(one, Wrong))
        assert str(found) == f"{folder / 'a.txt'}: byte 0xf6 is not UTF-8"

    def test_one_that_is_not_there_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read: No such file or directory"):
            list(corpus_folder.read(tmp_path / "none", Remarks()))


@pytest.mark.parametrize(
    ("name", "first", "form"),
    [
        ("x.tsv", b"Bees\t<http://example.org/a>\n", "annif"),
        ("x.tsv", b"id\taccepted\n", "tsv"),
        ("x.tsv", b'"id"\t"text"\t"accepted"\n', "tsv"),
        ("x.tsv", b"text\t ID \r\n", "tsv"),
        ("x.tsv", b'"Bees\rid\t<http://example.org/a>\n', "annif"),
        ("x.csv", b"", "csv"),
        ("x.jsonl", b"", "jsonl"),
    ],
)
def test_the_form_follows_from_the_name(name: str, first: bytes, form: Form) -> None:
    assert corpus.form_of(Path(name), first) == form
