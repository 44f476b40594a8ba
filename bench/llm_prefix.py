"""Tokens that llama.cpp evaluates for a content in two orders: content before tag, and tag before content.

    python bench/llm_prefix.py [--contents 3] [--tags 4] [--out bench/results/llm.json]

The model is SmolLM2-135M (extra llm-local). The counters are the server's own: tokens of the prompt less cached ones.
The judge asks content before tag. The figures are stored beside those of bench/llm.py in its file.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.config import LlmSettings, RetrySettings
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Asked, Question, Shot, Usage
from tagbus.stream.llm.client import Body, Tally, Unlimited
from tagbus.stream.llm.judge import Server
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.local.judges import LlamaServer

DEADLINE = 600.0


async def evaluated(server: Server, bodies: Iterable[Body]) -> tuple[int, int]:
    """Return the tokens of the prompts, and those evaluated."""
    tally = Tally()
    for body in bodies:
        await server.client.post(chat.PATH, body, Usage(1), time.monotonic() + DEADLINE, tally)
    return tally.usage.tokens_in, tally.usage.tokens_in - tally.usage.cached


async def measure(url: str, contents: int, tags: int) -> dict[str, float]:
    settings = LlmSettings(url=url, profile="llama.cpp", exemplars=1, in_flight=1)
    server, prompts = connected(settings, RetrySettings(), Unlimited()), prompts_of(settings)
    questions = [
        Question(one.id, one.name, one.description) for one in files.all_of(example("tags.jsonl"), files.tag_of)[:tags]
    ]
    shots = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    rendered = [
        prompts.render(Asked(content, questions, (Shot(shot.title, shot.text, (questions[0].name,)),)), 200)
        for content, shot in zip(
            files.all_of(example("content.jsonl"), files.content_of)[:contents], shots, strict=False
        )
    ]
    pairs = [(one, prompts.yes_no(question)) for one, question in product(rendered, questions)]
    try:
        first = [chat.one_token(server.profile, None, one, question, None) for one, question in pairs]
        last = [
            chat.one_token(server.profile, None, replace(one, context=question), one.context, None)
            for one, question in pairs
        ]
        sent, content_first = await evaluated(server, first)
        _, tag_first = await evaluated(server, last)
    finally:
        await server.client.close()
    return {
        "contents": contents,
        "tags_of_each": tags,
        "tokens_sent_a_content": round(sent / contents, 1),
        "tokens_evaluated_a_content": round(content_first / contents, 1),
        "tokens_evaluated_a_content_tag_first": round(tag_first / contents, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contents", type=int, default=3)
    parser.add_argument("--tags", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("bench/results/llm.json"))
    given = parser.parse_args()
    with LlamaServer() as server:
        found = {"prefix_reuse": asyncio.run(measure(server.url, given.contents, given.tags))}
    report = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    given.out.write_text(json.dumps({**report, **found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
