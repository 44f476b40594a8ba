"""Guards for RDF/XML and JSON-LD: reject unsafe input before their parser sees it.

pyoxigraph fetches nothing and bounds a token of Turtle and of JSON by 16 MiB. It expands entities without a bound,
keeps a text of RDF/XML whole and a node of JSON-LD whole, and ends the process where nesting takes all memory.
"""

import re
from typing import Final
from xml.parsers import expat

import numpy as np

from tagbus.stream.errors import UserError

# The deepest concept is some ten levels deep in either form.
DEPTH: Final = 200
# A node of JSON-LD with its values: a collection of 100,000 members has 8 MB. pyoxigraph takes 15 times as much memory.
NODE_BYTES: Final = 1 << 24
# A text of RDF/XML, and a tag with its attributes or a comment.
TEXT_CHARS: Final = 1 << 20
# An entity is the beginning of an IRI.
ENTITY_CHARS: Final = 256
# Depth at which nodes occur: in a list, or in the list of a graph.
_NODES: Final = 2

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)


class JsonGuard:
    """Bounds the nesting of JSON, and the size of a node."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = 0
        self._pending = b""
        self._since = 0

    def feed(self, data: bytes) -> None:
        """Check the next bytes."""
        data = self._pending + data
        # An escape may continue in the next bytes.
        self._pending = b"\\" if (len(data) - len(data.rstrip(b"\\"))) % 2 else b""
        if self._pending:
            data = data[:-1]
        if not data:
            return
        codes = np.frombuffer(_ESCAPE.sub(b"__", data), dtype=np.uint8)
        strings = (np.cumsum(codes == ord('"')) + self._in_string) % 2
        steps = np.isin(codes, (ord("{"), ord("["))).astype(np.int64) - np.isin(codes, (ord("}"), ord("]")))
        depths = self._depth + np.cumsum(np.where(strings == 1, 0, steps))
        self._check_depth(int(depths.max()))
        self._check_size(np.flatnonzero(depths <= _NODES), len(codes))
        self._depth, self._in_string = int(depths[-1]), int(strings[-1])

    def _check_depth(self, depth: int) -> None:
        if depth > DEPTH:
            raise UserError(f"JSON nested more than {DEPTH} deep")

    def _check_size(self, ends: np.ndarray[tuple[int], np.dtype[np.int64]], count: int) -> None:
        """`ends`: the positions where no node is open."""
        if ends.size:
            longest = max(self._since + int(ends[0]), int(np.diff(ends).max(initial=0)))
            self._since = count - int(ends[-1])
        else:
            self._since += count
            longest = self._since
        if longest > NODE_BYTES:
            raise UserError(f"a node of JSON of more than {NODE_BYTES} bytes")


class XmlGuard:
    """Bounds nesting, texts, tags and entities of XML, and finds where it is not well-formed."""

    def __init__(self) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._open
        parser.EndElementHandler = self._close
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        parser.XmlDeclHandler = self._declaration
        self._parser = parser
        self._depth = 0
        self._text = 0
        self._fed = 0

    def feed(self, data: bytes) -> None:
        """Check the next bytes; empty at the end."""
        try:
            self._parser.Parse(data, not data)
        except expat.ExpatError as error:
            raise UserError(
                f"line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}, "
                "expected well-formed XML in UTF-8"
            ) from None
        self._fed += len(data)
        if self._fed - self._parser.CurrentByteIndex > TEXT_CHARS:
            raise self._too_long("a tag or a comment")

    def _open(self, _name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._text = 0
        if self._depth > DEPTH:
            raise UserError(f"line {self._parser.CurrentLineNumber}: XML nested more than {DEPTH} deep")
        if sum(map(len, attributes.values())) > TEXT_CHARS:
            raise self._too_long("the attributes of a tag")

    def _close(self, _name: str) -> None:
        self._depth -= 1
        self._text = 0

    def _characters(self, data: str) -> None:
        self._text += len(data)
        if self._text > TEXT_CHARS:
            raise self._too_long("a text")

    def _entity(
        self,
        name: str,
        _is_parameter: bool,  # noqa: FBT001 - expat's signature
        value: str | None,
        _base: str | None,
        _system: str | None,
        _public: str | None,
        _notation: str | None,
    ) -> None:
        place = f"line {self._parser.CurrentLineNumber}: entity {name[:40]}"
        if value is None:
            raise UserError(f"{place} is in another file, and nothing is fetched")
        if len(value) > ENTITY_CHARS or "&" in value:
            raise UserError(f"{place}: expected at most {ENTITY_CHARS} characters without other entities")

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.casefold() not in {"utf-8", "utf8", "us-ascii"}:
            raise UserError(f"its encoding is {encoding[:40]}, expected UTF-8; `xmllint --encode UTF-8` converts it")

    def _too_long(self, what: str) -> UserError:
        return UserError(f"line {self._parser.CurrentLineNumber}: {what} of more than {TEXT_CHARS} characters")
