"""llama.cpp with SmolLM2 writes a text about a tag: the schema is held and the text is used. Plumbing, not quality."""

from tagbus.stream.config import LlmSettings
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.synthesis.subject import Description, Sample, Subject
from tagbus.stream.llm.synthesis.write import Author
from tagbus.stream.local.judges import LlamaServer
from tests.llm.asking import QUICK

BEES = Subject("Beekeeping", samples=(Sample("Feeding bees in winter", "Sugar for the hive.", own=True),))


async def test_a_description_is_written(llama: LlamaServer) -> None:
    settings = LlmSettings(url=llama.url, profile="llama.cpp", in_flight=1)
    server = connected(settings, QUICK, Unlimited())
    try:
        author = Author(server, prompts_of(settings), settings)
        # It writes at a temperature: of three, one is a sentence that ends in time.
        found = [text async for _, text in author.write([BEES] * 3, Description())]
    finally:
        await server.client.close()
    assert {text.why for text in found} <= {None, "malformed", "nothing"}
    texts = [one.text for text in found for one in text.written]
    assert any(len(text) > 10 for text in texts), found
    assert author.usage.tokens_out > 10
