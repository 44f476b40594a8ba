"""Invalid or malicious files: one line with the place, nothing fetched, memory bounded."""

import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagbus.stream.errors import UserError
from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.entry import Choice, Remarks
from tagbus.stream.vocabulary.forms import Form
from tagbus.stream.vocabulary.rdf import statements
from tests.vocabulary.reading import HEAD, read

SKOS = "http://www.w3.org/2004/02/skos/core#"
RDF_XML = (
    '<?xml version="1.0"?>{doctype}<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:s="'
    + SKOS
    + '">'
    '<s:Concept rdf:about="http://example.org/a"><s:prefLabel>{label}</s:prefLabel></s:Concept></rdf:RDF>'
)
JSON_LD = (
    '{"@context": %s, "@id": "http://example.org/a", "@type": "' + SKOS + 'Concept", "' + SKOS + 'prefLabel": "a"}'
)
# Entities of entities: 10^9 letters in less than a kilobyte.
LAUGHS = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 10))
BOMB = f'<!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>'


def said(text: str | bytes, form: Form) -> str:
    """The one-line refusal of a file."""
    with pytest.raises(UserError) as raised:
        read(text, form)
    (line,) = str(raised.value).splitlines()
    assert line.startswith("file:")
    assert len(line) < 500
    return line


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that must not get a request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


class TestEntities:
    def test_entities_of_entities_are_refused(self) -> None:
        line = said(RDF_XML.format(doctype=BOMB, label="&l9;"), "rdfxml")
        assert line == "file: line 1: entity l1: expected at most 256 characters without other entities"

    def test_a_long_entity_is_refused(self) -> None:
        doctype = f'<!DOCTYPE r [<!ENTITY a "{"x" * 1000}">]>'
        assert "entity a: expected at most 256 characters" in said(
            RDF_XML.format(doctype=doctype, label="&a;" * 1000), "rdfxml"
        )

    def test_short_entities_that_make_a_long_text_are_refused(self) -> None:
        doctype = f'<!DOCTYPE r [<!ENTITY a "{"x" * 200}">]>'
        line = said(RDF_XML.format(doctype=doctype, label="&a;" * 10_000), "rdfxml")
        assert line == "file: line 1: a text of more than 1048576 characters"

    def test_one_that_shortens_an_iri_is_fine(self) -> None:
        doctype = f'<!DOCTYPE r [<!ENTITY skos "{SKOS}">]>'
        assert read(RDF_XML.format(doctype=doctype, label="&skos;"), "rdfxml").one().name == SKOS


class TestRemote:
    def test_an_external_entity_is_not_read(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("the secret")
        doctype = f'<!DOCTYPE r [<!ENTITY a SYSTEM "{secret.as_uri()}">]>'
        line = said(RDF_XML.format(doctype=doctype, label="&a;"), "rdfxml")
        assert line == "file: line 1: entity a is in another file, and nothing is fetched"

    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE r SYSTEM "http://127.0.0.1:{port}/r.dtd">',
            '<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1:{port}/r.dtd"> %p;]>',
        ],
    )
    def test_a_document_type_elsewhere_is_not_fetched(self, listener: socket.socket, doctype: str) -> None:
        text = RDF_XML.format(doctype=doctype.replace("{port}", str(listener.getsockname()[1])), label="a")
        if "ENTITY" in doctype:
            assert "nothing is fetched" in said(text, "rdfxml")
        else:
            assert read(text, "rdfxml").one().name == "a"

    @pytest.mark.parametrize("context", ['"{}"', '["{}"]', '{{"@version": 1.1, "@import": "{}"}}'])
    def test_a_context_elsewhere_is_not_fetched(self, listener: socket.socket, context: str) -> None:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/context.jsonld"
        line = said(JSON_LD % context.format(address), "jsonld")
        assert line == "file: its @context is elsewhere and nothing is fetched: put it into the file"

    def test_an_ontology_that_is_imported_is_not_fetched(self, listener: socket.socket) -> None:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/other.ttl"
        assert read(HEAD + f':o owl:imports <{address}> . :a a skos:Concept ; skos:prefLabel "a" .').one().name == "a"


class Long(io.RawIOBase):
    """A file with one value of `size` bytes, which is never whole in memory."""

    def __init__(self, before: bytes, size: int, after: bytes) -> None:
        self._parts = [before, *[b"a" * 2**16] * (size // 2**16), after]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        part = self._parts.pop(0) if self._parts else b""
        part, rest = part[: len(buffer)], part[len(buffer) :]
        if rest:
            self._parts.insert(0, rest)
        buffer[: len(part)] = part
        return len(part)


LABEL = '<http://example.org/a> <http://www.w3.org/2004/02/skos/core#prefLabel> "'
LONG: dict[Form, tuple[str, str, str]] = {
    "turtle": (LABEL, '" .', "a value of more than 16 MiB"),
    "ntriples": (LABEL, '" .', "a value of more than 16 MiB"),
    "jsonld": ('{"http://example.org/p": "', '"}', "a value of more than 16 MiB"),
    "rdfxml": (RDF_XML.format(doctype="", label="|").split("|")[0], "", "a text of more than 1048576 characters"),
    "csv": ("id,name\na,", "\n", "file:2: a line of more than 4000000 bytes"),
    "tsv": ("id\tname\na\t", "\n", "file:2: a line of more than 4000000 bytes"),
    "annif": ("<http://example.org/a>\t", "\n", "file:1: a line of more than 4000000 bytes"),
    "jsonl": ('{"id": "a", "name": "', '"}', "file:1: a line of more than 4000000 bytes"),
}


@pytest.mark.parametrize("form", LONG)
def test_a_label_of_100_megabytes_is_refused_long_before_its_end(form: Form) -> None:
    before, after, expected = LONG[form]
    whole = Long(before.encode(), 100_000_000, after.encode())
    with io.BufferedReader(whole) as stream, pytest.raises(UserError) as raised:
        list(forms.read("file", stream, form, Choice(), Remarks()))
    assert expected in str(raised.value)
    assert len(whole._parts) > 1_200


@pytest.mark.parametrize("part", ["<!--", "<a b='"])
def test_a_comment_or_a_tag_of_100_megabytes_is_refused(part: str) -> None:
    before = RDF_XML.format(doctype="", label="|").split("|")[0] + part
    with io.BufferedReader(Long(before.encode(), 100_000_000, b"")) as stream, pytest.raises(UserError) as raised:
        list(forms.read("file", stream, "rdfxml", Choice(), Remarks()))
    assert str(raised.value) == "file: line 1: a tag or a comment of more than 1048576 characters"


class TestNesting:
    def test_json(self) -> None:
        assert said("[" * 1_000_000, "jsonld") == "file: JSON nested more than 200 deep"

    def test_brackets_in_strings_are_no_nesting(self) -> None:
        text = JSON_LD.replace('"a"}', '"%s"}' % (r"[{\"[\\" * 100)) % "{}"
        assert read(text, "jsonld").one().name.count("[") == 200

    def test_xml(self) -> None:
        text = RDF_XML.format(doctype="", label="|").split("<s:prefLabel>")[0]
        assert (
            said(text + "<s:broader><s:Concept>" * 1_000_000, "rdfxml") == "file: line 1: XML nested more than 200 deep"
        )

    def test_turtle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statements, "BLANK_RUN", 1_000)
        line = said("<http://example.org/a> <http://example.org/p> " + "(" * 10_000, "turtle")
        assert line == "file:1: more than 1000 blank nodes in a row"


def test_a_node_of_json_that_never_ends_is_refused_before_it_takes_memory() -> None:
    values = b",".join(b'{"@id":"http://example.org/%d"}' % number for number in range(700_000))
    line = said(b'{"@id":"http://example.org/a","http://example.org/p":{"@list":[' + values, "jsonld")
    assert line == "file: a node of JSON of more than 16777216 bytes"


class TestEncodings:
    @pytest.mark.parametrize(
        ("form", "text"),
        [
            ("csv", "id,name\na,Gr\xf6\xdfe\n"),
            ("tsv", "id\tname\na\tGr\xf6\xdfe\n"),
            ("annif", "x\ty\n<http://example.org/a>\tGr\xf6\xdfe\n"),
            ("jsonl", '{"id": "b", "name": "x"}\n{"id": "a", "name": "Gr\xf6\xdfe"}'),
        ],
    )
    def test_latin_1_is_named_with_its_line(self, form: Form, text: str) -> None:
        line = said(text.encode("latin-1"), form)
        assert line.startswith("file:2: byte 0xf6 is not UTF-8; `iconv -f LATIN1 -t UTF-8`")

    def test_latin_1_in_rdf(self) -> None:
        assert said((HEAD + ':a skos:prefLabel "Gr\xf6\xdfe" .').encode("latin-1"), "turtle").startswith(
            "file:7: Invalid UTF-8"
        )
        text = RDF_XML.format(doctype="", label="Gr\xf6\xdfe")
        assert "expected well-formed XML in UTF-8" in said(text.encode("latin-1"), "rdfxml")
        declared = text.replace('"1.0"', '"1.0" encoding="iso-8859-1"', 1)
        assert "its encoding is iso-8859-1, expected UTF-8" in said(declared.encode("latin-1"), "rdfxml")

    @pytest.mark.parametrize("form", ["turtle", "csv", "annif", "jsonl"])
    def test_a_byte_order_mark_is_no_part_of_the_text(self, form: Form) -> None:
        texts: dict[Form, str] = {
            "turtle": HEAD + ':a a skos:Concept ; skos:prefLabel "a" .',
            "csv": "id,name\na,a\n",
            "annif": "<http://example.org/a>\ta\n",
            "jsonl": '{"id": "a", "name": "a"}\n',
        }
        assert read(b"\xef\xbb\xbf" + texts[form].encode(), form).one().name == "a"


class TestSyntax:
    @pytest.mark.parametrize(
        ("form", "text", "expected"),
        [
            ("turtle", HEAD + "\n:a nope:p :b .", "file:8: The prefix nope: has not been declared"),
            ("turtle", "<a> <b> <c> .", "file:1: No scheme found in an absolute IRI"),
            ("turtle", HEAD + ':a skos:prefLabel "a', "file:7: Unexpected end"),
            ("ntriples", "<http://e.org/a> nonsense", "file:1: "),
            ("rdfxml", "<a><b></a>", "file: line 1, column 9: mismatched tag, expected well-formed XML in UTF-8"),
            ("rdfxml", "hello", "file: line 1, column 1: syntax error"),
            ("jsonld", '{"@id":', "file:1: "),
            ("jsonld", '{"@id": "http://e.org/a", "http://e.org/p": [1', "file:1: "),
        ],
    )
    def test_what_cannot_be_parsed_is_named_with_its_line(self, form: Form, text: str, expected: str) -> None:
        assert said(text, form).startswith(expected)

    def test_control_characters_of_the_file_do_not_reach_the_terminal(self) -> None:
        assert "\x1b" not in said(HEAD + ":a \x1b[31mnope:\x1b[0mp :b .", "turtle")


def test_without_the_library_rdf_says_what_to_install() -> None:
    code = (
        "import sys, io; sys.modules['pyoxigraph'] = None\n"
        "from tagbus.stream.vocabulary import forms\n"
        "from tagbus.stream.vocabulary.entry import Choice, Remarks\n"
        "from tagbus.stream.errors import UserError\n"
        "try: list(forms.read('file', io.BytesIO(b''), 'turtle', Choice(), Remarks()))\n"
        "except UserError as error: print(error)\n"
        "print(len(list(forms.read('file', io.BytesIO(b'id,name'), 'csv', Choice(), Remarks()))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["SKOS needs pyoxigraph: `pip install 'tagbus[skos]'`", "0"]
