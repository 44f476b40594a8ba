"""The example data: what everything that runs on it may rely on, and the rule by which it was cut."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, ValidationError

from tagbus.examples import cut
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.contract.fields import TEXT_CHARS

FOLDER = Path(__file__).parents[2] / "examples"
M = TypeVar("M", bound=BaseModel)


def rows(name: str) -> list[bytes]:
    return (FOLDER / name).read_bytes().splitlines()


def events(name: str, model: type[M]) -> list[M]:
    return [model.model_validate_json(row) for row in rows(name)]


TAGS = events("tags.jsonl", Tag)
EXEMPLARS = events("exemplars.jsonl", Exemplar)
CALIBRATION = events("calibration.jsonl", Exemplar)
CONTENTS = events("content.jsonl", Content)
NEW_TAG = Tag.model_validate_json((FOLDER / "new_tag.json").read_bytes())
NEW_CONTENTS = events("new_tag_content.jsonl", Content)
ANSWERS: list[dict[str, Any]] = [json.loads(row) for row in rows("answers.jsonl")]
BROKEN: list[dict[str, Any]] = [json.loads(row) for row in rows("broken.jsonl")]
IN_FORCE = {tag.id for tag in TAGS}


def test_it_is_large_enough_to_show_something_and_small_enough_to_travel() -> None:
    assert len(TAGS) >= 2_000
    assert len(CONTENTS) >= 500
    assert 3 <= len(NEW_CONTENTS) <= 5
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 4_000_000


def test_no_id_comes_twice() -> None:
    assert len(IN_FORCE) == len(TAGS)
    found = [title.id for title in EXEMPLARS + CALIBRATION] + [content.id for content in CONTENTS + NEW_CONTENTS]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("split", [EXEMPLARS, CALIBRATION], ids=["exemplars", "calibration"])
def test_every_known_tag_of_a_split_is_in_force(split: list[Exemplar]) -> None:
    assert all(title.accepted for title in split)
    assert {tag for title in split for tag in title.accepted} <= IN_FORCE
    assert {title.source for title in split} == {"people"}


def test_every_content_has_its_answer_in_the_same_order() -> None:
    assert [answer["id"] for answer in ANSWERS] == [content.id for content in CONTENTS]
    assert all(answer["accepted"] for answer in ANSWERS)


def test_every_right_answer_is_in_force_and_has_an_exemplar() -> None:
    right = {tag for answer in ANSWERS for tag in answer["accepted"]}
    assert right <= IN_FORCE
    assert right <= {tag for exemplar in EXEMPLARS for tag in exemplar.accepted}


def test_nothing_knows_the_new_tag_yet() -> None:
    assert NEW_TAG.id not in IN_FORCE
    assert NEW_TAG.name not in {tag.name for tag in TAGS}
    known = [*EXEMPLARS, *CALIBRATION]
    assert NEW_TAG.id not in {tag for title in known for tag in title.accepted}
    assert NEW_TAG.id not in {tag for answer in ANSWERS for tag in answer["accepted"]}


def test_the_titles_of_the_new_tag_say_it() -> None:
    assert all(NEW_TAG.name in content.text.casefold() for content in NEW_CONTENTS)


@pytest.mark.parametrize("split", [CONTENTS, CALIBRATION, NEW_CONTENTS], ids=["contents", "calibration", "new"])
def test_no_title_is_an_exemplar_but_for_order_case_and_punctuation(split: list[Content | Exemplar]) -> None:
    def words(text: str) -> frozenset[str]:
        return cut.Title("", text, ()).words

    known = {words(exemplar.text) for exemplar in EXEMPLARS}
    assert not [title.text for title in split if words(title.text) in known]


@pytest.mark.parametrize("row", BROKEN, ids=[row["why"] for row in BROKEN])
def test_a_broken_event_is_no_content(row: dict[str, Any]) -> None:
    value = recipe(row)
    assert len(value) < 1_000_000, "a broker takes it as it is"
    with pytest.raises(ValidationError):
        Content.model_validate_json(value)


def test_one_broken_event_is_only_too_long() -> None:
    (long,) = [row for row in BROKEN if "repeat" in row]
    Content.model_validate_json(recipe(long | {"times": TEXT_CHARS}))


def recipe(row: dict[str, Any]) -> bytes:
    """The bytes of a broken event."""
    if "base64" in row:
        return b64decode(row["base64"], validate=True)
    text: str = row["before"] + row["repeat"] * row["times"] + row["after"]
    return text.encode()


def titles(*tags: tuple[int, ...]) -> list[cut.Title]:
    return [cut.Title(f"yso-train-{row}", f"title {row}", found) for row, found in enumerate(tags, start=1)]


def test_growth_takes_the_tag_that_keeps_most_to_the_set() -> None:
    # 1 is always with 0; 2 is there as often, but mostly elsewhere; 3 never meets 0.
    train = titles((0, 1), (0, 1), (0, 2), (0, 2), (2, 3), (2, 3), (2, 3), (2, 3), (3,))
    assert cut.grow(train, 0, 2) == {0, 1}
    assert cut.grow(train, 0, 3) == {0, 1, 2}
    assert cut.grow(train, 0, 9) == {0, 1, 2, 3}


def test_pruning_goes_on_until_nothing_is_left_to_drop() -> None:
    # 3 has one title; without it 2 has one; 0 and 1 keep two.
    train = titles((0, 1), (0, 1), (2,), (2, 3))
    assert cut.prune(train, {0, 1, 2, 3}) == {0, 1}


def test_frequent_tags_are_thinned_out_and_rare_ones_kept() -> None:
    train = titles(*[(0,)] * (cut.ENOUGH_EXEMPLARS + 5), (0, 1))
    kept = cut.few_a_tag(train)
    assert len(kept) == cut.ENOUGH_EXEMPLARS + 1
    assert kept[-1].tags == (0, 1)


def test_near_duplicates_are_left_out() -> None:
    def title(text: str) -> cut.Title:
        return cut.Title(text, text, ())

    others = [title("The trees of Britain and Northern Europe")]
    found = [title("Trees of Britain and northern Europe"), title("Birds of Britain"), title("Britain: birds of")]
    assert [kept.text for kept in cut.unlike(found, others)] == ["Birds of Britain"]


def test_a_folder_is_cut_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    """A small folder of the source's form is cut, written and read back; twice gives the same bytes."""
    folder = tmp_path / "source"
    folder.mkdir()
    names = [cut.SEED, "water", "wind"]
    (folder / "labels.tsv").write_text("".join(f"{n}\thttp://x/p{n}\t{name}\n" for n, name in enumerate(names)))
    (folder / "train.tsv").write_text("".join(f"water {n} and wind\t0,{1 + n % 2}\n" for n in range(20)))
    (folder / "val.tsv").write_text("tidal power\t0,1\n" + "x" * (cut.TEXT_CHARS + 1) + "\t0\n")
    (folder / "test.tsv").write_text("mills and dams\t1\nwind alone\t2\n")
    (folder / "emerging.txt").write_text("2\n")

    source = cut.read(folder)
    written = []
    for out in tmp_path / "a", tmp_path / "b":
        out.mkdir()
        cut.write(source, cut.cut(source), out)
        written.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})

    assert written[0] == written[1]
    assert json.loads(written[0]["new_tag.json"]) == {"id": "p2", "name": "wind"}
    assert [json.loads(row)["id"] for row in written[0]["tags.jsonl"].splitlines()] == ["p0", "p1"]
    assert [json.loads(row)["id"] for row in written[0]["content.jsonl"].splitlines()] == ["yso-test-1"]
    assert [json.loads(row)["id"] for row in written[0]["calibration.jsonl"].splitlines()] == ["yso-val-1"]
