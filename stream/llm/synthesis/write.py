"""Write texts about tags with a language model, within the budget. Texts that cannot be written are left for another
run."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tagbus.stream.config import LlmSettings
from tagbus.stream.errors import Retryable, Withheld
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.client import Tally
from tagbus.stream.llm.judge import TEMPLATE, Server, completed, request_of
from tagbus.stream.llm.prompts import Prompts, Subject, tokens
from tagbus.stream.llm.shapes import Malformed
from tagbus.stream.llm.synthesis.subject import Wanted, Written, rendered, said

# No caller waits for a text: a slow server may take its time.
SECONDS: Final = 120.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Text:
    """The text written about a subject, and its model. `why`: a short reason if there is no text, else None."""

    written: tuple[Written, ...]
    model: str | None = None
    why: str | None = None


@dataclass(slots=True)
class Author:
    """Writes texts. One event loop."""

    server: Server
    prompts: Prompts
    settings: LlmSettings
    usage: Usage = field(default_factory=Usage)

    async def write(self, subjects: Sequence[Subject], wanted: Wanted) -> AsyncIterator[tuple[int, Text]]:
        """The text about each subject, by its index, as they arrive; `llm.in_flight` at a time.

        When the budget is spent or the server keeps failing, the rest is not requested. Raises UserError if the server
        refuses key, model or address.
        """
        left = iter(enumerate(subjects))
        stopped = False
        going = set[asyncio.Task[tuple[int, Text]]]()
        try:
            while True:
                while not stopped and len(going) < self.settings.in_flight and (one := next(left, None)) is not None:
                    going.add(asyncio.create_task(self._one(*one, wanted)))
                if not going:
                    return
                done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    place, text = task.result()
                    stopped |= text.why in {"budget", "breaker", "dependency"}
                    yield place, text
        finally:
            for task in going:
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)

    async def _one(self, place: int, subject: Subject, wanted: Wanted) -> tuple[int, Text]:
        server, tally = self.server, Tally()
        question = wanted.question(self.prompts, subject)
        room = self.settings.prompt_tokens - tokens(question) - TEMPLATE
        context = rendered(self.prompts, subject, room)
        body = chat.writing(
            server.profile, server.model, context, question, wanted.schema, wanted.tokens, server.adapter
        )
        request = request_of(server, body, context.tokens + tokens(question))
        deadline = time.monotonic() + SECONDS
        try:
            answer = await completed(server, request, deadline, tally)
        except Malformed:
            return place, Text((), tally.model, "malformed")
        except Retryable as error:
            log.warning("%s", error)
            return place, Text((), None, error.reason if isinstance(error, Withheld) else "dependency")
        finally:
            self.usage += tally.usage
        if answer is None or answer.refused:
            return place, Text((), tally.model, "refusal")
        found = said(answer.text, wanted, subject)
        if not found:
            return place, Text((), tally.model, "malformed" if found is None else "nothing")
        return place, Text(tuple(found), tally.model)
