"""CSV and TSV to tags: columns, lists, languages, and Annif's vocabularies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary.forms import Form
from tagbus.stream.vocabulary.table import join, split
from tests.contract.strategies import SHOWN
from tests.vocabulary.reading import read, written


class TestTable:
    @pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
    def test_a_column_a_field(self, form: Form, delimiter: str) -> None:
        rows = (
            ["id", "name", "aliases", "parents", "name_fi"],
            ["t1", "bees", "honeybees | bees (insects)", "t2|t3", "mehiläiset"],
        )
        tag = read("\n".join(delimiter.join(row) for row in rows), form).one()
        assert tag == Tag(
            id="t1",
            name="bees",
            aliases=("honeybees", "bees (insects)"),
            parents=("t2", "t3"),
            names={"fi": "mehiläiset"},
        )

    def test_a_byte_order_mark_empty_rows_and_short_rows_are_fine(self) -> None:
        assert read("\ufeffid,name,aliases\r\n\r\na,b\r\n", "csv").one() == Tag(id="a", name="b")

    @pytest.mark.parametrize("header", ["id,name,aliases", "id,label,aliases"])
    def test_a_row_that_ends_before_its_name_is_wrong_and_retires_nothing(self, header: str) -> None:
        found = read(f"{header}\na,x,\nb\n", "csv")
        assert (list(found.tags), found.deprecated) == (["a"], [])
        assert [str(wrong) for wrong in found.wrong] == [
            "file:3: name: '' is wrong, expected a string of 1 to 512 characters"
        ]

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("id,name,name", "the header has 'name' more than once, expected each column once"),
            ("id,uri,name", "expected only one of 'uri' and 'id'"),
            ("id,label,name", "expected only one of 'label' and 'name'"),
            ("id,label_en,name_en", "expected only one of 'label_en' and 'name_en'"),
        ],
    )
    def test_a_column_that_comes_twice_is_refused(self, header: str, expected: str) -> None:
        with pytest.raises(UserError) as raised:
            read(f"{header}\n1,2,3\n", "csv")
        assert str(raised.value).startswith("file:1: the header has ")
        assert str(raised.value).endswith(expected)

    def test_more_columns_than_a_tag_has_fields_are_refused(self) -> None:
        """Looking for one that comes twice took 80 s with 100,000."""
        header = ",".join(["id", "name", *(f"c{number}" for number in range(100_000))])
        with pytest.raises(UserError, match="file:1: the header has 100002 columns, expected at most 2000"):
            read(f"{header}\n1,a\n", "csv")

    def test_ignored_columns_are_named_in_their_order(self) -> None:
        found = read("id,z,name,y,x\na,1,b,2,3\n", "csv").remarks
        assert [line.split("'")[1] for line in found] == ["z", "y", "x"]

    @pytest.mark.parametrize("text", ["id,name\ra,x\r", "id,name\na,x\ry\n"])
    def test_carriage_returns_alone_are_said(self, text: str) -> None:
        with pytest.raises(UserError) as raised:
            read(text, "csv")
        assert "a carriage return alone ends no line" in str(raised.value)
        assert "quotes" not in str(raised.value)

    def test_columns_without_a_name_may_be_several(self) -> None:
        assert read("id,name,,\na,b,,\n", "csv").one() == Tag(id="a", name="b")

    def test_a_cell_may_have_lines(self) -> None:
        found = read('id,name,description\na,x,"one\ntwo"\nb,,\n', "csv")
        assert found.tags["a"].description == "one\ntwo"
        assert [wrong.place for wrong in found.wrong] == ["file:4"]

    def test_a_row_with_more_cells_than_the_header_is_wrong(self) -> None:
        (wrong,) = read("id,name\na,b,c\n", "csv").wrong
        assert str(wrong) == "file:2: 3 cells, expected 2 as in the header"

    def test_an_unknown_column_is_said_once(self) -> None:
        found = read("id,name,colour\na,b,red\nc,d,blue\n", "csv")
        assert found.remarks == [
            "file:2: column 'colour' is ignored; the columns are "
            "id, name, description, aliases, parents, scopes, replaced_by (and 1 more)"
        ]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("name\nb\n", "the header has 'name', expected a column `id` or `uri`"),
            ("", "the header has nothing, expected a column `id` or `uri`"),
            ("id\na\n", "expected a column `name`, or one `label_LANGUAGE` a language"),
            ('id,name\na,"b" c\n', "file:2: ',' expected after '\"'; a cell that contains quotes must be quoted"),
            ('id,name\na,"b\n', "file:2: unexpected end of data"),
        ],
    )
    def test_anything_but_a_table_is_one_line(self, text: str, expected: str) -> None:
        with pytest.raises(UserError) as raised:
            read(text, "csv")
        assert expected in str(raised.value)


class TestAnnif:
    def test_uri_and_label(self) -> None:
        found = read("<http://example.org/a>\tbees\n<http://example.org/b>\tants\t595.7\n\n", "annif")
        assert [(tag.id, tag.name) for tag in found.tags.values()] == [
            ("http://example.org/a", "bees"),
            ("http://example.org/b", "ants"),
        ]

    def test_one_without_a_label_is_deprecated(self) -> None:
        found = read("<http://example.org/a>\t\n", "annif")
        assert (found.tags, found.deprecated) == ({}, ["http://example.org/a"])

    def test_a_line_without_a_tab_is_wrong(self) -> None:
        (wrong,) = read("http://example.org/a bees\n", "annif").wrong
        assert wrong.place == "file:1"
        assert wrong.reason.endswith("expected <URI>, tab, label")

    CSV = "uri,label_en,label_fi,notation\nhttp://e.org/a,bees,mehiläiset,1\nhttp://e.org/b,,,\nhttp://e.org/c,,muurahaiset,\n"

    def test_a_multilingual_csv(self) -> None:
        found = read(self.CSV, "csv", language="en")
        assert found.tags["http://e.org/a"] == Tag(id="http://e.org/a", name="bees", names={"fi": "mehiläiset"})
        assert found.tags["http://e.org/c"].name == "muurahaiset"
        assert found.deprecated == ["http://e.org/b"]
        assert found.remarks == [
            "file:3: tags whose labels are all empty are retired",
            "file:4: has no label in en: the name is in fi",
        ]

    @pytest.mark.parametrize("row", ["http://e.org/b", "http://e.org/b,"])
    def test_only_a_whole_row_without_a_label_retires_its_tag(self, row: str) -> None:
        found = read(f"uri,label_en,label_fi\nhttp://e.org/a,bees,\n{row}\n", "csv", language="en")
        assert found.deprecated == []
        (wrong,) = found.wrong
        assert wrong.place == "file:3"
        assert wrong.reason.startswith("the row ends before 'label_")

    def test_notations_are_asked_for(self) -> None:
        assert read(self.CSV, "csv", language="en", notations=True).tags["http://e.org/a"].aliases == ("1",)
        own = "id,name,aliases,notation\na,bees,honeybees,V.13\nb,wasps,,\n"
        tags = read(own, "csv", notations=True).tags
        assert (tags["a"].aliases, tags["b"].aliases) == (("honeybees", "V.13"), ())
        annif = "<http://e.org/a>\tbees\tV.13\n"
        assert read(annif, "annif").tags["http://e.org/a"].aliases == ()
        assert read(annif, "annif", notations=True).tags["http://e.org/a"].aliases == ("V.13",)

    def test_its_language_must_be_chosen(self) -> None:
        with pytest.raises(UserError, match="labels in several languages, 'en', 'fi'"):
            read(self.CSV, "csv")

    def test_ids_and_names_are_written(self) -> None:
        tags = [Tag(id="http://e.org/a", name="two\nlines", aliases=("x",)), Tag(id="b", name="b", replaced_by=("c",))]
        assert written(tags, "annif") == b"<http://e.org/a>\ttwo lines\n"


@pytest.mark.parametrize("cell", ["C:\\", "x|C:\\", "C:\\|x"])
def test_a_backslash_with_nothing_to_escape_loses_no_item(cell: str) -> None:
    """A tag without its last scope would be shown to all."""
    assert "".join(split(cell)) == {"C:\\": "C:\\", "x|C:\\": "xC:\\", "C:\\|x": "C:|x"}[cell]


@given(st.lists(SHOWN, max_size=4).map(tuple))
def test_a_list_in_a_cell_comes_back(items: tuple[str, ...]) -> None:
    assert split(join(items)) == items
