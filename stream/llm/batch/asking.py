"""Questions about contents as parts of a batch, and the results of parts as answers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, Final, TypeVar

from tagbus.stream.config import LlmSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import UserError
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Answer, Asked, Usage
from tagbus.stream.llm.batch.answers import UNANSWERED, Given, digest_of
from tagbus.stream.llm.batch.folder import Folder, Job, Line, Part
from tagbus.stream.llm.batch.forms import request_line, result_lines
from tagbus.stream.llm.judge import ByChat, Request, Server, Stated, YesNo
from tagbus.stream.llm.prompts import Prompts
from tagbus.stream.llm.prompts.order import in_requests, shuffled
from tagbus.stream.llm.shapes import Malformed, Said, parsed
from tagbus.stream.llm.spending.batches import BatchSpending

T = TypeVar("T")

# OpenAI accepts 50,000 requests and 200 MB per file; results are read one part at a time.
REQUESTS: Final = 10_000
BYTES: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Batching:
    """How batches of one judge are built and read. `version`: the judge's."""

    asking: ByChat
    prompts: Prompts
    spending: BatchSpending
    version: str


def asking_of(settings: LlmSettings, server: Server, prompts: Prompts) -> ByChat:
    """The backend of a batch: that of the settings, since its answers are weighted by that backend's calibration.

    Raises UserError for settings that batches cannot keep.
    """
    if server.model is None:
        raise UserError("TAGBUS_LLM__MODEL is not set: a batch names its model")
    if settings.select != "off":
        raise UserError(f"TAGBUS_LLM__SELECT={settings.select}: a batch asks all questions together, expected off")
    match settings.backend:
        case "yesno":
            return YesNo(server, prompts)
        case "stated":
            return Stated(server, prompts)
    raise UserError(
        f"TAGBUS_LLM__BACKEND={settings.backend}: batches have chat completions alone, expected yesno or stated, at "
        "the workers and in their calibration too"
    )


class Writer:
    """Writes the parts of a batch into a folder."""

    def __init__(self, folder: Folder, batching: Batching) -> None:
        self._folder = folder
        self._batching = batching
        self._run = folder.begin()
        self._part = -1
        # Of all parts, and of the current part.
        self._contents = 0
        self._place = 0
        self._usage = Usage()
        self._bytes = 0
        self._open = ExitStack()
        # Of the current part: its requests and its contents.
        self._files: tuple[IO[bytes], IO[bytes]] | None = None

    def add(self, content: Content, asked: Asked | None) -> None:
        """Add a content, and the questions about it; None: none."""
        asked = self._shown(asked) if asked else None
        made = list(self._requests(asked)) if asked else []
        usage = sum((one.estimate for one in made), Usage())
        bodies = self._bodies(made)
        files = self._files
        if files is None or not self._room(usage, sum(map(len, bodies))):
            files = self._next()
            bodies = self._bodies(made)
        requests, lines = files
        requests.writelines(bodies)
        line = Line(
            digest=digest_of(self._batching.version, content),
            tags=tuple(one.tag_id for one in asked.questions) if asked else (),
            requests=tuple((one.estimate.tokens_in, one.estimate.tokens_out) for one in made),
        )
        lines.write(line.model_dump_json().encode() + b"\n")
        self._usage += usage
        self._bytes += sum(map(len, bodies))
        self._contents += 1
        self._place += 1

    def close(self, about: str) -> Job:
        """Finish the last part and write the job."""
        self._end()
        job = Job(
            run=self._run, version=self._batching.version, about=about, parts=self._part + 1, contents=self._contents
        )
        self._folder.asked(job)
        return job

    def _shown(self, asked: Asked) -> Asked:
        """The questions in the order of the requests."""
        count = range(len(asked.questions))
        parts = in_requests(shuffled(asked), count, self._batching.asking.at_once)
        return replace(asked, questions=tuple(asked.questions[at] for part in parts for at in part))

    def _requests(self, asked: Asked) -> Iterator[Request]:
        batching, questions = self._batching, asked.questions
        if not questions:
            return
        rendered = batching.prompts.render(asked, batching.asking.beside(questions))
        for some in _steps(questions, batching.asking.at_once):
            yield batching.asking.request(rendered, some)

    def _bodies(self, made: Sequence[Request]) -> list[bytes]:
        return [request_line(_id(self._place, number), one.body) for number, one in enumerate(made)]

    def _room(self, usage: Usage, size: int) -> bool:
        both = self._usage + usage
        return both.calls <= REQUESTS and self._bytes + size <= BYTES and self._batching.spending.fits(both)

    def _next(self) -> tuple[IO[bytes], IO[bytes]]:
        self._end()
        self._part += 1
        self._place, self._usage, self._bytes = 0, Usage(), 0
        requests, lines = (
            self._open.enter_context(file.open("wb"))
            for file in (self._folder.requests(self._part), self._folder.contents(self._part))
        )
        self._files = requests, lines
        return requests, lines

    def _end(self) -> None:
        self._open.close()
        self._files = None
        if self._part >= 0:
            used = self._usage
            self._folder.note(
                self._part, Part(requests=used.calls, tokens_in=used.tokens_in, tokens_out=used.tokens_out)
            )


def read_part(folder: Folder, number: int, batching: Batching) -> Iterator[Given]:
    """A part's answers about each of its asked contents."""
    part = folder.part(number)
    found = dict[str, bytes]()
    if folder.results(number).exists():
        with folder.results(number).open("rb") as lines:
            found = {one.custom_id: body for one in result_lines(lines) if (body := one.body) is not None}
    for place, line in enumerate(folder.lines(number)):
        if line.requests:
            bodies = [found.get(_id(place, request)) for request in range(len(line.requests))]
            yield _given(line, bodies, part.withheld or UNANSWERED, batching)


def _given(line: Line, bodies: Sequence[bytes | None], failure: str, batching: Batching) -> Given:
    answers, usage, model = list[Answer](), Usage(), None
    parts = zip(_steps(line.tags, batching.asking.at_once), bodies, line.estimates, strict=True)
    for tags, body, estimate in parts:
        if body is None:
            answers += [Answer()] * len(tags)
            continue
        try:
            said = parsed(Said, body)
            usage += Usage(1) + said.took(estimate)
            model = said.model or model
            answers += batching.asking.read(chat.completion(body), len(tags))
        except Malformed:
            answers += [Answer()] * len(tags)
    return Given(
        digest=line.digest,
        answers={tag: one.probability for tag, one in zip(line.tags, answers, strict=True)},
        backend=batching.asking.backend,
        prompt=batching.prompts.version,
        model=model,
        calls=usage.calls,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        cached=usage.cached,
        cost=batching.spending.cost(usage) if usage.calls else None,
        failure=None if any(body is not None for body in bodies) else failure,
    )


def _id(place: int, request: int) -> str:
    """The id of a request: its content's index in the part, and its own index within the content."""
    return f"{place}-{request}"


def _steps(items: Sequence[T], step: int) -> list[Sequence[T]]:
    return [items[start : start + step] for start in range(0, len(items), step)]
