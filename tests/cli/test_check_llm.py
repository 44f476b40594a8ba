"""`tagbus check` on the language model: a line for each check, none where no server is set."""

from tagbus.stream.cli.check import _llm
from tagbus.stream.config import LlmSettings, Settings
from tests.llm import answers
from tests.llm.scripted import routed, serving


def test_each_check_is_a_line_with_its_name() -> None:
    script = routed(systemone=answers.llamacpp_systemone(), models=answers.models("tinylaya.gguf"))
    with serving(script) as server:
        found = list(_llm(Settings(llm=LlmSettings(url=server.url, profile="llama.cpp"))))
    assert [(one.verdict, one.subject) for one in found] == [
        ("ok", "llm model"),
        ("ok", "llm backend"),
        ("ok", "llm known yes"),
        ("ok", "llm known no"),
    ]


def test_settings_that_do_not_fit_are_a_finding() -> None:
    (found,) = _llm(Settings(llm=LlmSettings(url="http://127.0.0.1:9/v1", profile="none")))
    assert found.verdict == "wrong"
    assert found.words.startswith("TAGBUS_LLM__PROFILE='none': there is no such profile, expected generic, ")
