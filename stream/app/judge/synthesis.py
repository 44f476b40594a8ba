"""Find tags that lack exemplars or a description, build the prompt's input, and turn the model's text into events.

Generated events are marked as such: an exemplar has source `machine`, so that it never outvotes people, and a distinct
id; both kinds of event carry `made_by` with model and prompt version. A reader that does not know the field ignores it.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tagbus.stream.app.data.corpus import followed, heirs_of
from tagbus.stream.app.judge.spending import spending
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError
from tagbus.stream.llm.open import LOOK_SECONDS, connected, named, prompts_of
from tagbus.stream.llm.prompts import Sample, Subject
from tagbus.stream.llm.synthesis.subject import Written
from tagbus.stream.llm.synthesis.write import Author, Text

# Prefix of the ids of generated exemplars.
PREFIX: Final = "synthetic:"
MADE_BY: Final = "made_by"
# Exemplars of the tag, and other contents, in a prompt.
OWN: Final = 3
OTHERS: Final = 3
# Contents that the others are chosen from.
POOL: Final = 2000


@dataclass(frozen=True, slots=True)
class Lacking:
    """A tag that lacks something, and the language model's input about it."""

    tag: Tag
    subject: Subject


class Known:
    """A taxonomy and people's decisions on contents: the source of all prompts."""

    def __init__(self, tags: Sequence[Tag], exemplars: Iterable[Exemplar]) -> None:
        """`exemplars` are read once; a few are kept for each tag."""
        self.tags = [tag for tag in tags if not tag.replaced_by]
        self._by_id = {tag.id: tag for tag in tags}
        self._heirs = heirs_of(tags)
        self.counts: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._own: defaultdict[str, list[Exemplar]] = defaultdict(list)
        self._pool: list[Exemplar] = []
        for one in exemplars:
            accepted = followed(one.accepted, self._heirs)
            if one.id.startswith(PREFIX):
                self._written.update(accepted)
            elif one.source == "people" and (one.title or one.text):
                self._add(one.model_copy(update={"accepted": accepted}))

    def few(self, least: int, most: int | None) -> list[Lacking]:
        """Tags with fewer than `least` exemplars of people and no generated ones yet, fewest first."""
        found = [tag for tag in self.tags if self.counts[tag.id] < least and not self._written[tag.id]]
        found.sort(key=lambda tag: (self.counts[tag.id], tag.id))
        return [Lacking(tag, self._subject(tag)) for tag in found[:most]]

    def bare(self, most: int | None) -> list[Lacking]:
        """Tags without a description."""
        found = [tag for tag in self.tags if not tag.description.strip()]
        return [Lacking(tag, self._subject(tag)) for tag in found[:most]]

    def _add(self, one: Exemplar) -> None:
        self.counts.update(one.accepted)
        for tag in one.accepted:
            if len(self._own[tag]) < OWN:
                self._own[tag].append(one)
        if len(self._pool) < POOL:
            self._pool.append(one)

    def _subject(self, tag: Tag) -> Subject:
        own = [one for one in self._own[tag.id] if _shown(one, tag)]
        return Subject(
            tag.name,
            tag.description,
            tag.aliases,
            tuple(above.name for one in tag.parents if (above := self._by_id.get(one)) and _shown(above, tag)),
            (*(Sample(one.title, one.text, own=True) for one in own), *self._others(tag)),
        )

    def _others(self, tag: Tag) -> Iterator[Sample]:
        """Some contents of other tags, to show what contents look like here; always the same ones for a tag."""
        if not self._pool:
            return
        first = int.from_bytes(hashlib.sha256(tag.id.encode(errors="replace")).digest()[:8], "big")
        found = 0
        for step in range(min(len(self._pool), 10 * OTHERS)):
            one = self._pool[(first + step * 7919) % len(self._pool)]
            if tag.id not in one.accepted and _shown(one, tag):
                found += 1
                yield Sample(one.title, one.text)
            if found == OTHERS:
                return


@asynccontextmanager
async def author(settings: Settings) -> AsyncIterator[Author]:
    """The author: the language model of the settings, within the group's budget.

    Raises UserError without a server or for settings that do not fit, and as `ledger.opened` does.
    """
    if settings.llm.url is None:
        raise UserError("TAGBUS_LLM__URL is not set, so there is no language model to write with")
    # It keeps separate spending records.
    kafka = settings.kafka.model_copy(update={"instance": f"{settings.kafka.instance}-synthesize"})
    own = settings.model_copy(update={"kafka": kafka})
    async with AsyncExitStack() as exits:
        meter = await exits.enter_async_context(spending(own, lambda: 1.0))
        if meter is None:
            raise AssertionError("a server is set")
        server = connected(settings.llm, settings.retry, meter)
        exits.push_async_callback(server.client.close)
        yield Author(await named(server, _until(LOOK_SECONDS)), prompts_of(settings.llm), settings.llm)


def exemplars_of(lacking: Lacking, text: Text, prompt: str) -> list[bytes]:
    """The generated exemplars, one JSON line each."""
    tag = lacking.tag
    return [
        _marked(
            Exemplar(
                id=_id(tag, one, text, prompt),
                source="machine",
                title=one.title,
                text=one.text,
                accepted=(tag.id,),
                time=datetime.now(UTC),
                scopes=tag.scopes,
            ),
            text,
            prompt,
        )
        for one in text.written
    ]


def described(lacking: Lacking, text: Text, prompt: str) -> list[bytes]:
    """The tag with the generated description, as one JSON line."""
    return [_marked(lacking.tag.model_copy(update={"description": one.text}), text, prompt) for one in text.written[:1]]


def _marked(event: Exemplar | Tag, text: Text, prompt: str) -> bytes:
    fields = json.loads(encode(event))
    return json.dumps({**fields, MADE_BY: {"model": text.model, "prompt": prompt}}).encode()


def _id(tag: Tag, one: Written, text: Text, prompt: str) -> str:
    """An id derived from the text: the same text is the same exemplar."""
    said = "\0".join((tag.id, one.title, one.text, text.model or "", prompt))
    return PREFIX + hashlib.sha256(said.encode(errors="replace")).hexdigest()[:24]


def _shown(one: Exemplar | Tag, tag: Tag) -> bool:
    """Whether every reader of the generated text, that is of the tag, may see this exemplar or broader tag too."""
    return not one.scopes or (bool(tag.scopes) and set(tag.scopes) <= set(one.scopes))


def _until(seconds: float) -> float:
    return time.monotonic() + seconds
