"""Inputs after public reports: what the README beside this file says of each."""

from pathlib import Path

import pytest

from tests.cli.harness import Cli

HERE = Path(__file__).parent
FINITE = "metadata: an object of size 1 is wrong, expected finite numbers"

# By file: how many lines are right, and what is said of the others, in order.
LINES: dict[str, tuple[int, list[str]]] = {
    "bom.jsonl": (1, ["expected JSON without a byte order mark at its start"]),
    "crlf.jsonl": (2, []),
    "connect.jsonl": (0, ["a record of Kafka Connect with its schema is wrong, expected the payload alone"]),
    "change.jsonl": (0, ["a change event of Debezium is wrong, expected the row alone"]),
    "twice.jsonl": (0, ["a string that holds JSON is wrong, expected the JSON itself: it was encoded twice"]),
    "surrogate.jsonl": (0, ["expected JSON whose \\u escapes name a character, surrogates in pairs"]),
    "numbers.jsonl": (
        0,
        [FINITE, FINITE, "version: 2.0 is wrong, expected a whole number", "numbers of at most 4300 digits"],
    ),
    "ids.jsonl": (5, []),
    "special.jsonl": (2, []),
}
# By file: what is said of it as a whole.
FILES = {"utf16.jsonl": "is in UTF-16", "list.json": "is one JSON list"}


@pytest.mark.parametrize(("name", "found"), LINES.items(), ids=LINES)
def test_each_line_says_what_would_be_right(tagbus: Cli, name: str, found: tuple[int, list[str]]) -> None:
    right, wrong = found
    answer = tagbus("validate", HERE / name)
    assert answer.err.splitlines()[0].startswith(f"{right} right, {len(wrong)} wrong")
    said = [line for line in answer.lines if line.startswith(str(HERE))]
    assert len(said) == len(wrong)
    for line, words in zip(said, wrong, strict=True):
        assert words in line
    assert answer.code == (3 if wrong else 0)


@pytest.mark.parametrize(("name", "words"), FILES.items(), ids=FILES)
def test_a_file_of_another_form_is_one_line(tagbus: Cli, name: str, words: str) -> None:
    answer = tagbus("validate", HERE / name)
    assert answer.code == 2
    assert answer.one_line().startswith(f"tagbus: {HERE / name} {words}, expected JSON lines in UTF-8")


def test_every_input_is_tried() -> None:
    assert {path.name for path in HERE.glob("*.json*")} == LINES.keys() | FILES.keys()
