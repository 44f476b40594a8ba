"""The section `llm`: parsing of its variables, and the errors for wrong ones."""

import pytest

from tagbus.stream.config import load
from tagbus.stream.errors import UserError


def test_fields_of_metadata_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_LLM__METADATA", "section, author,")
    assert load().llm.metadata == ("section", "author")


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_LLM__API_KEY", "sk-very-secret")
    assert "very-secret" not in repr(load())


@pytest.mark.parametrize("url", ["host:8000/v1", "ftp://host", "http://", "http://a b"])
def test_an_address_is_a_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_LLM__URL", url)
    with pytest.raises(UserError, match=r"TAGBUS_LLM__URL=.*expected http:// or https://"):
        load()
