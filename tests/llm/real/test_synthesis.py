"""llama.cpp with SmolLM2 writes a text about a tag: the schema is held and the text is used. It tests the plumbing, not
quality."""

from tagbus.stream.config import LlmSettings
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.prompts import Sample, Subject
from tagbus.stream.llm.synthesis.subject import Description
from tagbus.stream.llm.synthesis.write import Author
from tagbus.stream.local.judges import LlamaServer
from tests.llm.asking import QUICK

BEES = Subject("Beekeeping", samples=(Sample("Feeding bees in winter", "Sugar for the hive.", own=True),))


async def test_a_description_is_written(llama: LlamaServer) -> None:
    settings = LlmSettings(url=llama.url, profile="llama.cpp", in_flight=1)
    server = connected(settings, QUICK, Unlimited())
    try:
        author = Author(server, prompts_of(settings), settings)
        # Of 60 tokens at most: a long one is cut in the middle, which is said.
        ((_, text),) = [found async for found in author.write([BEES], Description(tokens=60))]
    finally:
        await server.client.close()
    assert (text.why is None) == bool(text.written)
    assert text.why in {None, "malformed", "nothing"}
    assert author.usage.calls == 1
    assert 10 < author.usage.tokens_out <= 60
