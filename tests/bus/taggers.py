"""Minimal taggers, for tests of the bus and as the floor of its benchmark."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence

from tagbus.stream.bus.process.isolation import BatchTagger
from tagbus.stream.contract.events import Content, Evidence, ScoredTag, TaggedContent, Versions
from tagbus.stream.errors import DependencyDown, FieldError, Untaggable
from tagbus.stream.tagger import Failure

VERSIONS = Versions.model_construct(release="trivial", calibration="none", taxonomy={})
TAG = ScoredTag.model_construct(
    id="t1", name="Tag", score=0.5, confidence=0.9, stage="recall", evidence=Evidence(similarity=0.5)
)


def tagged(content: Content, tag: ScoredTag = TAG) -> TaggedContent:
    """A result with one tag."""
    return TaggedContent(id=content.id, tags=(tag,), versions=VERSIONS, path=("trivial",), time=content.time)


class Trivial:
    """Gives every content the same tag, after `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.seen: list[list[str]] = []

    def revision(self) -> str:
        return "trivial"

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        self.seen.append([content.id for content in contents])
        if self.seconds:
            await asyncio.sleep(self.seconds)
        return [tagged(content) for content in contents]


class Huge(Trivial):
    """Returns results above any topic's limit for the contents that `chosen` picks."""

    def __init__(self, chosen: Callable[[Content], bool], size: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.tag_ = TAG.model_copy(update={"name": "x" * size})

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        return [tagged(content, self.tag_ if self.chosen(content) else TAG) for content in contents]


class Gated(Trivial):
    """Holds the batches that contain a content that `chosen` picks, until `gate` is opened."""

    def __init__(self, chosen: Callable[[Content], bool]) -> None:
        super().__init__()
        self.chosen = chosen
        self.open = False
        self.waiting = 0
        self.most = 0

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        if any(self.chosen(content) for content in contents):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            while not self.open:
                await asyncio.sleep(0.01)
            self.waiting -= 1
        return await super().tag(contents)


class Down(Trivial):
    """Its dependency is down until `up` is set, or for its first `calls` calls."""

    def __init__(self, calls: int | None = None) -> None:
        super().__init__()
        self.up = False
        self.calls = 0
        self.last = calls

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        self.calls += 1
        self.up = self.up or (self.last is not None and self.calls > self.last)
        if not self.up:
            raise DependencyDown("the encoder does not answer")
        return await super().tag(contents)


class Allergic(Trivial):
    """Raises for a batch with a content that `poison` picks, as a bug would."""

    def __init__(self, poison: Callable[[Content], bool]) -> None:
        super().__init__()
        self.poison = poison

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        if any(self.poison(content) for content in contents):
            raise ZeroDivisionError(f"cannot divide {contents[0].text}")
        return await super().tag(contents)


class Picky(Trivial):
    """Returns a Failure for the contents that `refused` picks."""

    def __init__(self, refused: Callable[[Content], bool]) -> None:
        super().__init__()
        self.refused = refused

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        error = Untaggable("encode", (FieldError("text", "'...'", "a text that the encoder takes"),))
        return [Failure(content.id, error) if self.refused(content) else tagged(content) for content in contents]


class Uneven(Trivial):
    """Takes between `least` and `most` seconds, different for each batch."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least = least
        self.most = most

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        self.seconds = random.uniform(self.least, self.most)  # noqa: S311 - spreads load, guards nothing
        return await super().tag(contents)


class Deadly(Trivial):
    """Kills its process at a content that `deadly` picks, as a segmentation fault or the kernel's OOM killer does."""

    def __init__(self, deadly: Callable[[Content], bool], seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.deadly = deadly

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        if any(self.deadly(content) for content in contents):
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().tag(contents)


def named(spec: str) -> BatchTagger:
    """A tagger by name and arguments, for a process's command line:

    - `trivial:SECONDS` (or SECONDS alone), `random:LEAST-MOST` seconds a batch
    - `down`: its dependency never answers; `down:CALLS`: not for the first CALLS
    - `deadly:MARKER[:SECONDS]`, `picky:MARKER`, `allergic:MARKER`, `huge:MARKER:BYTES`: at contents with MARKER in
      their id or text
    """
    name, *arguments = spec.split(":")
    match name, arguments:
        case "trivial", []:
            return Trivial()
        case "trivial", [seconds]:
            return Trivial(float(seconds))
        case "random", [bounds]:
            least, most = bounds.split("-")
            return Uneven(float(least), float(most))
        case "down", []:
            return Down()
        case "down", [calls]:
            return Down(int(calls))
        case "deadly", [marker, *seconds]:
            return Deadly(_marked(marker), float(*seconds))
        case "picky", [marker]:
            return Picky(_marked(marker))
        case "allergic", [marker]:
            return Allergic(_marked(marker))
        case "huge", [marker, size]:
            return Huge(_marked(marker), int(size))
        case _:
            return Trivial(float(spec))


def _marked(marker: str) -> Callable[[Content], bool]:
    return lambda content: marker in content.id or marker in content.text
