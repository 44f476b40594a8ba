"""Prompts: versioned jinja2 templates, rendered from fenced text, cut to a length.

The content's part comes first and is the same for all its tags, so that a server computes it once; the tag comes last.
The excess over the length is cut in this order: exemplars, least similar first, knowledge likewise, the end of the
content's text, the metadata. The task, the title and the tag are never cut further.
"""

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Final

from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.llm.base import Asked, Question, Shot
from tagbus.stream.llm.prompts.fence import fenced
from tagbus.stream.llm.prompts.length import CHARS_A_TOKEN, shortened, thirds, tokens

_FOLDER: Final = importlib.resources.files("tagbus.stream") / "llm" / "prompts"
# Limits of characters that a prompt shows of a field.
NAME: Final = 200
DESCRIPTION: Final = 400
TITLE: Final = 400
SHOT: Final = 400
SEGMENT: Final = 800
# The number of cached questions about tags.
CACHED: Final = 10_000
# The limit of tag names per exemplar.
SHOWN: Final = 20
YES_NO: Final = ("Yes", "No")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A content's part of its prompts. `cut` names the parts that were left out or shortened, in order."""

    task: str
    context: str
    cut: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """An upper estimate."""
        return tokens(self.task) + tokens(self.context)


def versions() -> list[str]:
    """The prompt versions in the package."""
    return sorted(folder.name for folder in _FOLDER.iterdir() if folder.is_dir() and folder.name.startswith("v"))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The fenced input of a content's part."""

    title: str
    text: str
    language: str
    shots: tuple[Shot, ...]
    knowledge: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A content beside a tag to write about; `own`: the tag is right for it."""

    title: str
    text: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """A tag to write about. `broader`: names of broader tags. They and `samples` are visible to all who see the tag."""

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    broader: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()


class Prompts:
    """The templates of one version."""

    def __init__(self, version: str, length: int, metadata: Sequence[str] = (), shots: int = 3) -> None:
        """`length` in tokens, of one prompt; `metadata` names the fields that may be sent; `shots`: limit of exemplars.

        Raises UserError for an unknown version.
        """
        if version not in versions():
            known = ", ".join(versions())
            raise UserError(f"TAGBUS_LLM__PROMPT={shorten(version)}: there is no such version, expected {known}")
        self.version = version
        self._length = length
        self._metadata = tuple(metadata)
        self._shots = shots
        self._templates = environment(version)
        # The same tags recur constantly.
        self.question = lru_cache(CACHED)(self._question)
        self.yes_no = lru_cache(CACHED)(self._yes_no)
        self._task = self._template("task")

    def render(self, asked: Asked, beside: int = 0) -> Rendered:
        """The content's part, cut so that `beside` further tokens, those of the longest question, fit."""
        room = self._length - tokens(self._task) - beside
        parts, cut = self._parts(asked), list[str]()
        context = self._context(parts)
        while tokens(context) > room and parts.shots:
            parts = replace(parts, shots=parts.shots[:-1])
            cut.append(f"exemplar {len(parts.shots) + 1}")
            context = self._context(parts)
        while tokens(context) > room and parts.knowledge:
            parts = replace(parts, knowledge=parts.knowledge[:-1])
            cut.append(f"knowledge {len(parts.knowledge) + 1}")
            context = self._context(parts)
        if tokens(context) > room and parts.text:
            parts = replace(parts, text=shortened(parts.text, tokens(context) - room))
            cut.append("text")
            context = self._context(parts)
        if tokens(context) > room and parts.metadata:
            parts = replace(parts, metadata=())
            cut.append("metadata")
            context = self._context(parts)
        return Rendered(self._task, context, tuple(cut))

    def _question(self, question: Question) -> str:
        """The question about one tag."""
        return self._template(
            "question", name=self.name(question), description=fenced(question.description, DESCRIPTION)
        )

    def _yes_no(self, question: Question, words: tuple[str, ...] = YES_NO) -> str:
        """The same with the answer words, in that order."""
        return self._template("yesno", question=self.question(question), words=words)

    def stated(self, labels: Sequence[str], questions: Sequence[Question]) -> str:
        """One question about all tags, by labels."""
        return self._template("stated", tags=self._labelled(labels, questions))

    def select(self, labels: Sequence[str], questions: Sequence[Question]) -> str:
        """The choice among all tags, by labels."""
        return self._template("select", tags=self._labelled(labels, questions))

    def named(self, questions: Sequence[Question]) -> str:
        """The choice among all tags, by names."""
        return self._template("named", tags=[self.name(one) for one in questions])

    def writer(self) -> str:
        """The task for writing rather than judging."""
        return self._template("writer")

    def subject(self, subject: Subject) -> str:
        """The part about a tag to write about, with sample contents."""
        return self._template(
            "subject",
            name=fenced(subject.name, NAME),
            description=fenced(subject.description, DESCRIPTION),
            aliases=[fenced(one, NAME) for one in subject.aliases[:SHOWN]],
            broader=[fenced(one, NAME) for one in subject.broader[:SHOWN]],
            samples=[
                {"title": fenced(one.title, TITLE), "text": fenced(one.text, SHOT), "own": one.own}
                for one in subject.samples
            ],
        )

    def write_exemplars(self, name: str, count: int) -> str:
        """The request for this many contents of a tag."""
        return self._template("write_exemplars", name=fenced(name, NAME), count=count)

    def write_description(self, name: str) -> str:
        """The request for a tag's description."""
        return self._template("write_description", name=fenced(name, NAME))

    def longest(self, questions: Sequence[Question], count: int) -> Sequence[Question]:
        """The `count` questions with the longest names: no list of as many is longer, in whatever order they are shown
        and whichever are selected before."""
        if len(questions) <= count:
            return questions
        return sorted(questions, key=lambda one: -thirds(f" {self.name(one)}"))[:count]

    def name(self, question: Question) -> str:
        """The name of a tag as prompts show it."""
        return fenced(question.name, NAME)

    def _labelled(self, labels: Sequence[str], questions: Sequence[Question]) -> list[tuple[str, str]]:
        return [(label, self.name(one)) for label, one in zip(labels, questions, strict=True)]

    def _parts(self, asked: Asked) -> _Parts:
        content = asked.content
        return _Parts(
            fenced(content.title, TITLE),
            # Bounded before it is examined: a prompt cannot show more.
            fenced(content.text, CHARS_A_TOKEN * self._length),
            fenced(asked.language or "", 35),
            tuple(map(_shot, asked.shots[: self._shots])),
            tuple(fenced(f"{one.title}: {one.text}" if one.title else one.text, SEGMENT) for one in asked.knowledge),
            tuple(
                (fenced(name, NAME), _value(content.metadata[name]))
                for name in self._metadata
                if name in content.metadata
            ),
        )

    def _context(self, parts: _Parts) -> str:
        return self._template(
            "context",
            title=parts.title,
            text=parts.text,
            language=parts.language,
            shots=parts.shots,
            knowledge=parts.knowledge,
            metadata=parts.metadata,
        )

    def _template(self, template: str, /, **values: object) -> str:
        return self._templates.get_template(f"{template}.j2").render(**values).strip()


@cache
def environment(version: str) -> ImmutableSandboxedEnvironment:
    """The templates of a version. They read only what they are given, and change nothing."""
    folder = _FOLDER / version
    return ImmutableSandboxedEnvironment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,  # no HTML; every value is fenced before it comes here
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def _shot(shot: Shot) -> Shot:
    return Shot(
        fenced(shot.title, TITLE),
        fenced(shot.text, SHOT),
        tuple(fenced(name, NAME) for name in shot.accepted[:SHOWN]),
        tuple(fenced(name, NAME) for name in shot.rejected[:SHOWN]),
    )


def _value(value: object) -> str:
    return fenced(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), TITLE)
