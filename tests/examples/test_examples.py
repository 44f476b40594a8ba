"""The example data: what everything that runs on it may rely on, and the rule by which it was cut."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    assert len(TAGS) >= 500
    assert len(CONTENTS) == 600
    assert len(NEW_CONTENTS) == 5
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


def test_the_contents_of_the_new_tag_say_it() -> None:
    name, _, _ = NEW_TAG.name.rpartition(" (")
    assert all(name.casefold() in f"{content.title}\n{content.text}".casefold() for content in NEW_CONTENTS)


def test_a_parent_is_a_broader_tag_or_the_facet() -> None:
    for tag in [*TAGS, NEW_TAG]:
        (parent,) = tag.parents
        assert tag.id.startswith(f"{parent}:")
        assert parent in IN_FORCE or "::" not in parent


def test_no_tag_is_given_away_by_a_name_or_by_boilerplate() -> None:
    facets = {tag.id.partition("::")[0] for tag in TAGS}
    assert facets.isdisjoint({"role", "implemented-in", "interface", "scope", "special"})
    assert not [tag.id for tag in TAGS if tag.id.startswith("devel::lang:") or tag.id.endswith("::TODO")]


def test_no_text_names_an_address() -> None:
    found = [*EXEMPLARS, *CALIBRATION, *CONTENTS, *NEW_CONTENTS]
    assert not [each.id for each in found if cut.ADDRESS.search(f"{each.title}\n{each.text}")]


@pytest.mark.parametrize("split", [CONTENTS, CALIBRATION, NEW_CONTENTS], ids=["contents", "calibration", "new"])
def test_no_content_is_an_exemplar_but_for_order_case_and_punctuation(split: list[Content | Exemplar]) -> None:
    def words(each: Content | Exemplar) -> frozenset[str]:
        return cut.Package("", "", each.title, each.text, ()).words

    known = {words(exemplar) for exemplar in EXEMPLARS}
    assert not [each.id for each in split if words(each) in known]


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


def package(name: str, source: str = "", title: str = "", tags: tuple[str, ...] = ()) -> cut.Package:
    return cut.Package(name, source or name, title or name, "", tags)


def test_packages_of_one_source_are_on_one_side() -> None:
    found = [package(f"{source}-{part}", source) for source in map(str, range(300)) for part in ("bin", "data")]
    sides = [{each.source for each in side} for side in cut.split(found)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 300
    train, calibration, test = map(len, sides)
    assert train > test > calibration


def test_frequent_tags_are_thinned_out_and_rare_ones_kept() -> None:
    train = [package(str(number), tags=("often",)) for number in range(cut.ENOUGH_EXEMPLARS + 5)]
    kept = cut.few_a_tag([*train, package("last", tags=("often", "rare"))])
    assert len(kept) == cut.ENOUGH_EXEMPLARS + 1
    assert kept[-1].tags == ("often", "rare")


def test_near_duplicates_are_left_out() -> None:
    first = package("a", title="The trees of Britain and Northern Europe")
    found = [
        package("b", title="Trees of Britain and northern Europe"),
        package("c", title="Birds of Britain"),
        package("d", title="Britain: birds of"),
    ]
    seen = cut.Seen([first, *found])
    assert [each.id for each in seen.unlike([first])] == ["a"]
    assert [each.id for each in seen.unlike(found)] == ["c"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join), max_size=20))
def test_no_near_duplicate_is_overlooked(texts: list[str]) -> None:
    """What is kept is what comparing every text with every one before it keeps."""
    found = [package(f"p{number}", title=text) for number, text in enumerate(texts)]
    kept: list[cut.Package] = []
    for each in found:
        if all(100 * len(each.words & one.words) < cut.OVERLAP_PERCENT * len(each.words | one.words) for one in kept):
            kept.append(each)
    assert cut.Seen(found).unlike(found) == kept


VOCABULARY = """Facet: game
Description: Games and Amusement

Tag: game::board
Description: Board
 Draughts and such.

Tag: game::board:chess
Description: Chess

Tag: game::TODO
Description: Need an extra tag

Facet: role
Description: Role

Tag: role::program
Description: Program
"""


def lists(folder: Path) -> Path:
    """A small folder of the source's form."""
    folder.mkdir()
    stanzas = []
    texts = []
    for number in range(40):
        tags = ["game::board:chess"] if number % 2 else ["game::board", "game::TODO"]
        stanzas.append(
            f"Package: chess-{number}\nSource: source{number} (1.{number})\nDescription: short\n"
            f"Description-md5: {number:032}\nTag: role::program,\n {', '.join(tags)}\nSize: 1\n"
        )
        texts.append(
            f"Package: chess-{number}\nDescription-md5: {number:032}\nDescription-en: Chess or draughts {number}\n"
            f" Number {number} of{' many' * 60}\n games.\n .\n Second paragraph\n"
        )
    (folder / f"mirror{cut.SUITE}main_binary-amd64_Packages").write_text("\n".join(stanzas))
    (folder / f"mirror{cut.SUITE}main_i18n_Translation-en").write_text("\n".join(texts))
    (folder / f"mirror{cut.SUITE}InRelease").write_text("Hash: SHA256\n\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n")
    (folder / "vocabulary").write_text(VOCABULARY)
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    source = cut.read(lists(tmp_path / "lists"))
    assert source.date == "2026-07-11"
    assert source.tags == ["game::board", "game::board:chess"]
    first = next(each for each in source.packages if each.id == "chess-1")
    assert (first.source, first.title, first.tags) == ("source1", "Chess or draughts 1", ("game::board:chess",))
    assert first.text == f"Number 1 of{' many' * 60}"[: len(first.text)]
    assert cut.TEXT_CHARS - 5 < len(first.text) <= cut.TEXT_CHARS


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has 0 files \*_dists_bookworm_main_i18n_Translation-en, expected one"):
        cut.read(tmp_path)


def test_a_folder_is_cut_to_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small folder is cut, written and read back; twice gives the same bytes."""
    # The descriptions are alike.
    monkeypatch.setattr(cut, "OVERLAP_PERCENT", 100)
    source = cut.read(lists(tmp_path / "lists"))
    written = []
    for out in tmp_path / "a", tmp_path / "b":
        out.mkdir()
        cut.write(source, cut.cut(source), out)
        written.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})

    assert written[0] == written[1]
    assert json.loads(written[0]["new_tag.json"]) == {
        "id": "game::board:chess",
        "name": "Chess (Games and Amusement)",
        "parents": ["game::board"],
    }
    assert [json.loads(row) for row in written[0]["tags.jsonl"].splitlines()] == [
        {"id": "game::board", "name": "Board (Games and Amusement)", "parents": ["game"]}
    ]
    assert written[0]["content.jsonl"]
    assert len(written[0]["content.jsonl"].splitlines()) == len(written[0]["answers.jsonl"].splitlines())
