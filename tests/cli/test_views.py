"""`tagbus views`, as far as it goes without Kafka."""

import logging
import sys

import pytest

from tagbus.stream.cli.views import CHATTY, REQUESTS
from tests.cli.harness import Cli


@pytest.fixture
def without_faust(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        one for one in sys.modules if one.partition(".")[0] == "faust" or one.startswith("tagbus.stream.views")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "faust", None)


@pytest.mark.usefixtures("without_faust")
def test_without_the_extra_it_says_what_to_install(tagbus: Cli) -> None:
    answer = tagbus("views")
    assert answer.code == 2
    assert answer.one_line() == "tagbus: faust is not installed: pip install 'tagbus[views]'"


@pytest.mark.usefixtures("without_faust")
def test_at_debug_the_libraries_log_no_records(tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    loggers = [logging.getLogger(name) for name in (*CHATTY, REQUESTS)]
    for one in loggers:
        monkeypatch.setattr(one, "level", logging.NOTSET)

    assert tagbus("views", "--log", "debug").code == 2

    *libraries, requests = (one.level for one in loggers)
    assert set(libraries) == {logging.ERROR}
    assert requests == logging.CRITICAL


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("WINDOW_SECONDS", "5000", "expected multiples of views.step_seconds=3600, at most 1000 times"),
        ("WINDOW_SECONDS", "36000000", "expected multiples of views.step_seconds=3600, at most 1000 times"),
        ("GROUP", "a b", "expected 1 to 249 ASCII letters"),
        ("PORT", "0", "greater than or equal to 1"),
        ("ADVERTISED", "me:8790", "expected http:// or https://"),
    ],
)
def test_a_wrong_setting_is_named(tagbus: Cli, setting: str, value: str, words: str) -> None:
    answer = tagbus("views", settings={f"VIEWS__{setting}": value})
    assert answer.code == 2
    assert f"TAGBUS_VIEWS__{setting}" in answer.one_line()
    assert words in answer.one_line()


@pytest.mark.parametrize("step", ["7000", "60"])
def test_a_step_that_does_not_fit_the_default_windows_is_refused(tagbus: Cli, step: str) -> None:
    """7,000 s does not divide a day, and the longest window would have 10,080 steps of 60 s."""
    answer = tagbus("views", settings={"VIEWS__STEP_SECONDS": step})
    assert answer.code == 2
    words = f"TAGBUS_VIEWS__WINDOW_SECONDS=(86400, 604800): expected multiples of views.step_seconds={step}, at most"
    assert words in answer.one_line()


def test_the_windows_are_told_apart_by_commas(tagbus: Cli) -> None:
    answer = tagbus("config", settings={"VIEWS__WINDOW_SECONDS": "7200, 3600"})
    assert answer.code == 0
    assert "3600" in answer.out
