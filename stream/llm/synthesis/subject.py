"""Prompts about a tag, and the parsing of their answers.

The winners of SemEval 2025, task 5 wrote synthetic exemplars for tags that have few. Names, descriptions and contents
are fenced as in the prompts of the judge; answers are as untrusted: cut to length, one line, no unseen characters.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field, JsonValue

from tagbus.stream.llm.prompts import Prompts, Rendered, Subject, tokens
from tagbus.stream.llm.prompts.fence import seen
from tagbus.stream.llm.shapes import Malformed, Shape, parsed

# The characters kept of written text.
TITLE: Final = 300
TEXT: Final = 2000
DESCRIPTION: Final = 400
# Token limits of an answer: per content, and overhead.
TOKENS_A_CONTENT: Final = 250
TOKENS: Final = 150

Json = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Written:
    """A written content."""

    title: str
    text: str


class _Content(Shape):
    title: str = ""
    text: str = ""


class _Contents(Shape):
    contents: Annotated[list[JsonValue], Field(max_length=100)]


class _Description(Shape):
    description: str


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Asks for `count` contents of a tag."""

    count: int

    @property
    def tokens(self) -> int:
        """The token limit of an answer."""
        return TOKENS + TOKENS_A_CONTENT * self.count

    @property
    def schema(self) -> Json:
        """The JSON schema of an answer."""
        text: JsonValue = {"type": "string"}
        content: JsonValue = {
            "type": "object",
            "properties": {"title": text, "text": text},
            "required": ["title", "text"],
            "additionalProperties": False,
        }
        return _object("contents", {"type": "array", "items": content})

    def question(self, prompts: Prompts, subject: Subject) -> str:
        """The end of the prompt."""
        return prompts.write_exemplars(subject.name, self.count)

    def read(self, text: str, subject: Subject) -> list[Written]:
        """The contents, without duplicates and samples. Raises Malformed."""
        found = dict[str, Written]()
        samples = {_key(one.title, one.text) for one in subject.samples}
        for value in parsed(_Contents, text.encode()).contents[: self.count]:
            try:
                one = _Content.model_validate(value)
            except ValueError:
                continue
            written = Written(seen(one.title, TITLE), seen(one.text, TEXT))
            key = _key(written.title, written.text)
            if key.strip() and key not in samples:
                found.setdefault(key, written)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Description:
    """Asks for a tag's description."""

    tokens: int = TOKENS

    @property
    def schema(self) -> Json:
        """The JSON schema of an answer."""
        return _object("description", {"type": "string"})

    def question(self, prompts: Prompts, subject: Subject) -> str:
        """The end of the prompt."""
        return prompts.write_description(subject.name)

    def read(self, text: str, subject: Subject) -> list[Written]:
        """The description as a text; one that only repeats the name is dropped. Raises Malformed."""
        said = seen(parsed(_Description, text.encode()).description, DESCRIPTION)
        return [] if not said or said.casefold().strip(" .") == subject.name.casefold() else [Written("", said)]


# What is asked for.
Wanted = Exemplars | Description


def rendered(prompts: Prompts, subject: Subject, room: int) -> Rendered:
    """The prompt's part about a tag, without the last samples if it would exceed `room` tokens."""
    task, context = prompts.writer(), prompts.subject(subject)
    while subject.samples and tokens(task) + tokens(context) > room:
        subject = replace(subject, samples=subject.samples[:-1])
        context = prompts.subject(subject)
    return Rendered(task, context, ())


def said(text: str, wanted: Wanted, subject: Subject) -> list[Written] | None:
    """The content of an answer; None if it is not one."""
    try:
        return wanted.read(text, subject)
    except Malformed:
        return None


def _object(name: str, schema: JsonValue) -> Json:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def _key(title: str, text: str) -> str:
    return " ".join(f"{title}\n{text}".casefold().split())
