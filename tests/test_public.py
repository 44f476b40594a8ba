"""The public API of tagbus.stream: its names, what they import, and the lines of the README."""

import importlib
import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

import tagbus.stream
from tagbus.stream import Content, Exemplar, Failure, Tag, TaggedContent, UserError, errors, open_tagger
from tagbus.stream.app.data.examples import example

README = Path(__file__).parent.parent / "README.md"
# Of what is installed beside it, none is needed to make an event.
HEAVY = ("confluent_kafka", "torch", "tritonclient", "onnxruntime", "qdrant_client", "numpy", "tagbus.stream.app")


def python(lines: str) -> str:
    """What these lines print in a new process."""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def brought(line: str) -> set[str]:
    """Of the heavy modules those that a line imports."""
    return set(python(f"{line}\nimport sys\nprint(*(one for one in {HEAVY} if one in sys.modules))").split())


def test_the_names_are_these() -> None:
    assert tagbus.stream.__all__ == [
        "Content",
        "Decision",
        "DependencyDown",
        "Display",
        "Exemplar",
        "Failure",
        "Fatal",
        "Poison",
        "ReleaseMismatch",
        "Retryable",
        "Settings",
        "Tag",
        "TagbusError",
        "TaggedContent",
        "Tagger",
        "Untaggable",
        "UserError",
        "open_tagger",
        "show",
    ]


@pytest.mark.parametrize("name", tagbus.stream.__all__)
def test_a_name_is_the_one_of_its_module(name: str) -> None:
    found = getattr(tagbus.stream, name)
    assert found.__name__ == name
    assert getattr(importlib.import_module(found.__module__), name) is found


def test_every_error_that_it_names_is_in_the_tree() -> None:
    public = [getattr(tagbus.stream, name) for name in tagbus.stream.__all__]
    named = {one for one in public if isinstance(one, type) and issubclass(one, Exception)}
    assert named == {
        errors.TagbusError,
        errors.UserError,
        errors.Retryable,
        errors.DependencyDown,
        errors.Poison,
        errors.Untaggable,
        errors.Fatal,
        errors.ReleaseMismatch,
    }


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'tagbus\.stream' has no attribute 'Judge'"):
        getattr(tagbus.stream, "Judge")  # noqa: B009


@pytest.mark.parametrize(
    "line", ["import tagbus.stream.errors", "from tagbus.stream import Content", "from tagbus.stream import UserError"]
)
def test_a_name_brings_no_more_than_it_needs(line: str) -> None:
    assert brought(line) == set()


def test_a_tagger_needs_neither_kafka_nor_a_server() -> None:
    assert brought("from tagbus.stream import open_tagger").isdisjoint({"confluent_kafka", "torch", "tritonclient"})


def test_the_lines_of_the_readme_tag() -> None:
    (lines,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert re.match(r"a \[\('beekeeping', 0\.\d+\)", python(lines))


async def test_files_of_the_examples_are_iterables_that_it_takes() -> None:
    def lines(name: str) -> list[str]:
        return example(name).read_text(encoding="utf-8").splitlines()

    right = {one["id"]: one["accepted"] for one in map(json.loads, lines("answers.jsonl")[:40])}
    taught = set(chain.from_iterable(right.values()))
    tags = (tag for tag in map(Tag.model_validate_json, lines("tags.jsonl")) if tag.id in taught)
    exemplars = map(Exemplar.model_validate_json, lines("exemplars.jsonl")[:200])
    contents = [one for one in map(Content.model_validate_json, lines("content.jsonl")) if one.id in right]
    async with open_tagger(tags, exemplars) as tagger:
        found = await tagger.tag(contents)
    best = {one.id: one.tags[0].id for one in found if isinstance(one, TaggedContent) and one.tags}
    # 23 when this was written.
    assert sum(tag in right[one] for one, tag in best.items()) >= 20


async def test_what_people_decided_counts() -> None:
    tags = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea")]
    decided = Exemplar(id="a", title="Hives and honey", accepted=("law",), rejected=("bees",))
    async with open_tagger(tags, [decided]) as tagger:
        (one,) = await tagger.tag([Content(id="a", title="Hives and honey")])
    assert isinstance(one, TaggedContent)
    assert [(tag.id, tag.stage) for tag in one.tags] == [("law", "people")]


async def test_settings_that_are_given_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = [Tag(id=f"t{number}", name=f"beekeeping in year {number}") for number in range(5)]
    monkeypatch.setenv("TAGBUS_TAGGER__TAGS", "2")
    given = tagbus.stream.Settings()
    monkeypatch.setenv("TAGBUS_TAGGER__TAGS", "many")
    async with open_tagger(tags, settings=given) as tagger:
        (one,) = await tagger.tag([Content(id="a", title="Bees")])
    assert not isinstance(one, Failure)
    assert len(one.tags) == 2  # type: ignore[union-attr]
    with pytest.raises(UserError, match="TAGBUS_TAGGER__TAGS"):
        async with open_tagger(tags):
            pass
