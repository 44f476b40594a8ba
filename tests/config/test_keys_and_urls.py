"""Keys, headers and addresses: what a client would raise for at the first request is refused at the start, unshown."""

import pytest

from tagbus.stream.config import LlmSettings, load
from tagbus.stream.errors import UserError

SECRET = "hunter2"
KEYS = ("TAGBUS_LLM__API_KEY", "TAGBUS_WEB__API_KEY", "TAGBUS_MEMORY__API_KEY")
URLS = ("TAGBUS_LLM__URL", "TAGBUS_REGISTRY__URL", "TAGBUS_OTEL__ENDPOINT", "TAGBUS_VIEWS__ADVERTISED")


def refusal(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> str:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        load()
    return str(caught.value)


@pytest.mark.parametrize("variable", KEYS)
@pytest.mark.parametrize("around", ["sk-é{}", "sk-{}\x01", "sk\n{}", "{}\u200b"])
def test_a_key_that_no_header_takes_is_refused(variable: str, around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, variable, around.format(SECRET))
    assert said == f"{variable}=********: expected visible ASCII characters, as HTTP headers have them"


def test_a_program_s_wrong_key_is_not_shown_either() -> None:
    with pytest.raises(ValueError, match="expected visible ASCII characters") as caught:
        LlmSettings(api_key=f"é{SECRET}")  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variable", KEYS)
def test_a_key_may_have_a_word_before_it(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, f"Token sk-{SECRET}=+/")
    assert SECRET not in load().model_dump_json()


@pytest.mark.parametrize(
    "headers", ['{"x-key": "é hunter2"}', '{"x-key": "a\\r\\nb: hunter2"}', '{"x key": "hunter2"}']
)
def test_headers_of_a_collector_are_headers(headers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "TAGBUS_OTEL__HEADERS", headers)
    assert said.startswith("TAGBUS_OTEL__HEADERS")
    assert SECRET not in said


@pytest.mark.parametrize("variable", [*URLS, "TAGBUS_MEMORY__URL"])
@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host:1/v1", "http://host:1/v1?key=hunter2", "http://u:h/hunter2@h"]
)
def test_a_secret_in_an_address_is_refused_and_not_shown(
    variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(monkeypatch, variable, url)
    words = "expected an address alone: user, password and key have settings of their own"
    assert said == f"{variable}=********: {words}"


@pytest.mark.parametrize("variable", [*URLS, "TAGBUS_WEB__URL"])
@pytest.mark.parametrize(
    "url",
    ["http://[::1/v1", "http://host:port/v1", "http://host:0", "http://a..b", "http://h\x01", "file:///x", "host"],
)
def test_an_address_that_no_client_takes_is_refused(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, variable, url)
    assert said == f"{variable}={url!r}: expected http:// or https://, a host and the path of the API"


@pytest.mark.parametrize("url", ["http://user:hunter2@host/search", "http://[::1/?key=hunter2"])
def test_of_a_search_neither_a_password_nor_a_parameter_is_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, "TAGBUS_WEB__URL", url).startswith("TAGBUS_WEB__URL=********: expected http:// or")


@pytest.mark.parametrize(
    "url", ["http://[::1]:8000/v1", "https://xn--mnchen-3ya.example/v1", "https://münchen.example/v1"]
)
def test_addresses_that_clients_take_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*URLS, "TAGBUS_WEB__URL"):
        monkeypatch.setenv(variable, url)
    assert load().llm.url == load().web.url == url


def test_a_search_keeps_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_WEB__URL", "http://host:8888/search?format=json&to=a@b")
    assert load().web.url == "http://host:8888/search?format=json&to=a@b"
