"""Zhihu's score: the model lists the right tags by name, and a tag's score is the mean probability of its tokens.

It is valid only if a server returns the likelihood of the tokens that the model itself would write. A grammar over
strings produces others (eleven for two words), and probabilities after its mask are relative to the allowed tokens. So
it is a separate mode (`TAGBUS_LLM__SELECT=tokens`), refused if the server is found to return anything else.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import JsonValue

from tagbus.stream.errors import UserError
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Answer, Backend, Question
from tagbus.stream.llm.client import Tally
from tagbus.stream.llm.judge import TEMPLATE, Server, completed, request_of
from tagbus.stream.llm.prompts import Prompts, Rendered, tokens
from tagbus.stream.llm.shapes import MALFORMED, REJECTED, UNSELECTED, Malformed, unknown

# Two words that language models tokenise as two or three tokens.
_PHRASE: Final = "information retrieval"
_ORDER: Final = 'Write exactly {"tags": ["information retrieval"]} and nothing else.'


class Likelihood:
    """Backend `tokens`: one call, the tags by name, the mean probability of each one's tokens."""

    backend: Backend = "tokens"
    at_once = len(chat.LABELS)

    def __init__(self, server: Server, prompts: Prompts) -> None:
        self._server = server
        self._prompts = prompts

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        return tokens(self._prompts.named(self._prompts.longest(questions, self.at_once))) + TEMPLATE

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        server, names = self._server, [self._prompts.name(one) for one in questions]
        question = self._prompts.named(questions)
        body = listing(server, rendered, question, names)
        estimate = rendered.tokens + tokens(question)
        try:
            answer = await completed(server, request_of(server, body, estimate), deadline, tally)
            if answer is None:
                return unknown(REJECTED, len(questions))
            found = dict(scores(answer))
        except Malformed:
            return unknown(MALFORMED, len(questions))
        # Two tags of one name cannot be told apart: both get its score.
        return [Answer(found[name]) if name in found else Answer(unknown=UNSELECTED) for name in names]


def listing(server: Server, rendered: Rendered, question: str, names: Sequence[str]) -> dict[str, JsonValue]:
    """A request for a list of names with the probabilities of its tokens."""
    schema = chat.select_schema(names)
    body = chat.by_schema(server.profile, server.model, rendered, question, schema, len(names), server.adapter)
    most = sum(map(tokens, names)) + chat.JSON_TOKENS + chat.TOKENS_A_LABEL * len(names)
    return {**body, server.profile.token_limit: most, "logprobs": True, "top_logprobs": 0}


def scores(answer: chat.Completion) -> Iterator[tuple[str, float]]:
    """Each name that an answer lists with the mean probability of its tokens. Raises Malformed."""
    for name, own in _spelt(answer):
        # A listed "" has no tokens.
        if own:
            yield name, math.fsum(math.exp(one.logprob) for one in own) / len(own)


async def require_canonical(server: Server, rendered: Rendered, deadline: float) -> None:
    """Raises UserError unless a name is written in the same tokens with a constraint and without, unmasked."""
    refused = "TAGBUS_LLM__SELECT=tokens"
    if server.profile.logprobs != "raw":
        given = "no" if server.profile.logprobs == "none" else server.profile.logprobs
        words = f"profile {server.profile.name} has {given} probabilities of tokens, so no likelihood"
        raise UserError(f"{refused}: {words}; expected off or labels")
    held = listing(server, rendered, _ORDER, [_PHRASE])
    free = {name: value for name, value in held.items() if name != "response_format"}
    written = []
    for body in (held, free):
        try:
            answer = await completed(server, request_of(server, body, rendered.tokens), deadline, Tally())
            spelt = dict(_spelt(answer)) if answer else {}
        except Malformed:
            spelt = {}
        written.append([one.token for one in spelt.get(_PHRASE, ())])
    if not written[0] or written[0] != written[1]:
        words = f"a name is {len(written[0])} tokens under a constraint and {len(written[1])} without"
        raise UserError(f"{refused}: {words}, so its mean says nothing; expected off or labels")


def _spelt(answer: chat.Completion) -> Iterator[tuple[str, Sequence[chat.Token]]]:
    """Each name that an answer lists, with its tokens, without those of JSON syntax. Raises Malformed."""
    if "".join(one.token for one in answer.tokens) != answer.text:
        raise Malformed("the tokens do not make up the text")
    names = chat.listed(answer)
    place = 0
    for name in names:
        start = answer.text.find(f'"{name}"', place) + 1
        if not start:
            raise Malformed("a name is written with escapes")
        place = start + len(name)
        own, at = [], 0
        for one in answer.tokens:
            if at < place and at + len(one.token) > start:
                own.append(one)
            at += len(one.token)
        yield name, own
