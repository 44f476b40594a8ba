"""The model selects among the candidates before they are judged (LLM4Tag's first step): by labels, one token each.

Never by ids or names: a content could spell those, and they take several tokens.
"""

import logging
from collections.abc import Sequence

from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Asked, Question
from tagbus.stream.llm.client import Tally
from tagbus.stream.llm.judge import TEMPLATE, Server, completed, request_of
from tagbus.stream.llm.prompts import Prompts, Rendered, tokens
from tagbus.stream.llm.shapes import Malformed

log = logging.getLogger(__name__)


class Selecting:
    """Selects by one chat call per twenty candidates."""

    def __init__(self, server: Server, prompts: Prompts) -> None:
        self._server = server
        self._prompts = prompts

    def beside(self, questions: Sequence[Question]) -> int:
        """Tokens of the longest request besides the content's part."""
        most = self._prompts.longest(questions, len(chat.LABELS))
        return tokens(self._prompts.select(chat.LABELS[: len(most)], most)) + TEMPLATE

    async def select(
        self, rendered: Rendered, asked: Asked, order: Sequence[int], deadline: float, tally: Tally
    ) -> set[int]:
        """The indices of the questions that the model selects; all of a request without a valid answer.

        Raises as Client.post does.
        """
        found: set[int] = set()
        for start in range(0, len(order), len(chat.LABELS)):
            places = order[start : start + len(chat.LABELS)]
            labels = chat.LABELS[: len(places)]
            chosen = await self._labels(rendered, labels, [asked.questions[at] for at in places], deadline, tally)
            found |= {at for label, at in zip(labels, places, strict=True) if label in chosen}
        return found

    async def _labels(
        self, rendered: Rendered, labels: Sequence[str], questions: Sequence[Question], deadline: float, tally: Tally
    ) -> Sequence[str]:
        server = self._server
        question = self._prompts.select(labels, questions)
        schema = chat.select_schema(labels)
        body = chat.by_schema(server.profile, server.model, rendered, question, schema, len(labels), server.adapter)
        try:
            answer = await completed(
                server, request_of(server, body, rendered.tokens + tokens(question)), deadline, tally
            )
            # An unreadable answer excludes nothing: the judge still decides.
            return labels if answer is None or answer.refused else chat.selected(answer, labels)
        except Malformed as error:
            log.warning("a selection of the language model cannot be read, so all candidates are judged: %s", error)
            return labels
